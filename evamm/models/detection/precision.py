"""Precision of the heads."""

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn

from ..layers import without_autocast


def head_precision(x: Tensor, autocast: bool) -> AbstractContextManager:
    """Switches autocast off, as the official detector does for all heads, unless it is wanted."""
    return nullcontext() if autocast else without_autocast(x.device.type)


def head_inputs(x: tuple[Tensor, ...], head: nn.Module, autocast: bool) -> tuple[Tensor, ...]:
    """The maps as the heads take them: as precise as their weights, or as they are."""
    if autocast:
        return tuple(x)
    dtype = next(head.parameters()).dtype
    return tuple(level.to(dtype) for level in x)
