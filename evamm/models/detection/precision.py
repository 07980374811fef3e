"""Precision of the heads."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def head_precision(x: Tensor, autocast: bool) -> AbstractContextManager:
    """Switches autocast off, as the official detector does for all heads, unless it is wanted."""
    return nullcontext() if autocast else torch.autocast(x.device.type, enabled=False)


def head_inputs(x: tuple[Tensor, ...], autocast: bool) -> tuple[Tensor, ...]:
    """The maps as the heads take them: in float32, or as they are under autocast."""
    return tuple(x) if autocast else tuple(level.float() for level in x)
