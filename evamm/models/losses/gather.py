"""Features of all processes."""

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from torch import Tensor


class _GatherWithGrad(torch.autograd.Function):
    """Concatenation over processes; gradients are summed up over the losses of all."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return _gather(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        if dist.get_backend() == 'nccl':
            parts = list(grad.chunk(get_world_size()))
            own = torch.empty_like(parts[0])
            dist.reduce_scatter(own, parts)
            return own
        dist.all_reduce(grad)
        return grad.chunk(get_world_size())[get_rank()]


def _gather(x: Tensor) -> Tensor:
    out = x.new_empty(get_world_size() * x.shape[0], *x.shape[1:])
    dist.all_gather(list(out.chunk(get_world_size())), x.contiguous())
    return out


def gather_features(*features: Tensor, with_grad: bool) -> tuple[Tensor, ...]:
    """Every process's rows, in the order of ranks, in one exchange.

    Args:
        features: Tensors [b, E] of one shape in all processes.
        with_grad: Whether gradients flow back to the process that a row came from, summed up over
            the losses of all processes.

    Returns:
        For each argument [world size * b, E].
    """
    if get_world_size() == 1:
        return features
    stacked = torch.stack(features, dim=1)  # [b, n, E]
    stacked = _GatherWithGrad.apply(stacked) if with_grad else _gather(stacked.detach())
    return stacked.unbind(dim=1)


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or in its own precision if that is higher."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
