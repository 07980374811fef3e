"""Matrix products with weights, at the speed of the machine."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula


def _onednn_is_faster() -> bool:
    """Whether fp32 products should go through oneDNN instead of PyTorch's default on this CPU.

    PyTorch hands them to MKL, which uses AVX-512 on Intel processors only. On an AMD processor that
    has it, oneDNN (part of the same PyTorch) runs them twice as fast, with the same rounding error.
    The answer depends on the processor alone, so that a resumed run takes the same path.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, '_linear_pointwise'):
        return False
    cpuinfo = Path('/proc/cpuinfo')
    vendor = cpuinfo.read_text() if cpuinfo.exists() else ''
    return torch.backends.cpu.get_cpu_capability() == 'AVX512' and 'AuthenticAMD' in vendor


_USE_ONEDNN = _onednn_is_faster()
# Below this many multiply-adds the cost of the call outweighs the faster kernel.
_MIN_PRODUCT = 2**22


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')


if hasattr(torch.ops.mkldnn, '_linear_pointwise'):

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def _count_flops(x_shape: tuple, weight_shape: tuple, *args: object, **kwargs: object) -> int:
        """Lets ``FlopCounterMode`` see the product; PyTorch has no formula for it."""
        return 2 * math.prod(x_shape) * weight_shape[0]


class _OneDNNLinear(torch.autograd.Function):
    """x W^T + b; the two products of the backward pass take the same path."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _onednn(x, weight, bias)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])  # [M, O]
        # Through `linear`, not the bare operator, so that second derivatives exist.
        grad_x = linear(grad, weight.t()) if needs_x else None
        grad_weight = None
        if needs_weight:
            grad_weight = linear(rows.t(), x.reshape(-1, x.shape[-1]).t())  # [O, I]
        return grad_x, grad_weight, rows.sum(0) if needs_bias else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``, by the fastest exact fp32 kernel of the machine.

    Args:
        x: [..., I].
        weight: [O, I].
        bias: [O] or None.

    Returns:
        Tensor of shape [..., O].
    """
    if (
        torch.compiler.is_compiling()
        or not _USE_ONEDNN
        or x.device.type != 'cpu'
        or x.dtype != torch.float32
        or weight.dtype != torch.float32
        or torch.is_autocast_enabled('cpu')
        or torch.jit.is_tracing()
        or x.numel() * weight.shape[0] < _MIN_PRODUCT
    ):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _OneDNNLinear.apply(x, weight, bias)
    return _onednn(x, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear`` that computes with :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
