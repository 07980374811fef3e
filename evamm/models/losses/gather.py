"""Features of all processes."""

import torch
import torch.distributed as dist
from mmengine.dist import get_rank, get_world_size
from torch import Tensor


class _GatherWithGrad(torch.autograd.Function):
    """Concatenation over processes; the gradient of a part is the sum over all processes' losses."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return _gather(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        if dist.get_backend() == 'nccl':
            part = grad.new_empty(grad.shape[0] // get_world_size(), *grad.shape[1:])
            dist.reduce_scatter_tensor(part, grad)
            return part
        dist.all_reduce(grad)
        return grad.chunk(get_world_size())[get_rank()]


def _gather(x: Tensor) -> Tensor:
    out = x.new_empty(get_world_size() * x.shape[0], *x.shape[1:])
    dist.all_gather_into_tensor(out, x.contiguous())
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


class _ScaleGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def scale_grad(x: Tensor, factor: float) -> Tensor:
    """``x`` itself, whose gradient is multiplied by ``factor``."""
    return _ScaleGrad.apply(x, factor)
