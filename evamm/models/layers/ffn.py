"""Feed-forward networks of the EVA trunks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear
from .norm import LayerNorm


class _GatedProduct(torch.autograd.Function):
    """SiLU(gate) * value of a packed [..., 2H]; SiLU is computed again in the backward pass.

    Saves the tensor [..., H] that autograd would keep for it, and the joining of two gradients.
    """

    @staticmethod
    def forward(ctx: object, packed: Tensor) -> Tensor:
        ctx.save_for_backward(packed)
        gate, value = packed.chunk(2, dim=-1)
        return F.silu(gate).mul_(value)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        (packed,) = ctx.saved_tensors
        gate, value = packed.chunk(2, dim=-1)
        if torch.is_grad_enabled():  # second derivatives: a formula that autograd knows
            share = gate.sigmoid()
            by_gate = grad * value * share * (1 + gate * (1 - share))
            return torch.cat((by_gate, grad * F.silu(gate)), dim=-1)
        out = torch.empty_like(packed)
        by_gate, by_value = out.chunk(2, dim=-1)
        torch.mul(grad, value, out=by_gate)
        torch.ops.aten.silu_backward(by_gate, gate, grad_input=by_gate)
        torch.mul(grad, F.silu(gate), out=by_value)
        return out


def gated_product(packed: Tensor) -> Tensor:
    """SiLU of the first half of the channels times the second half: [..., 2H] to [..., H]."""
    if (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    ):
        gate, value = packed.chunk(2, dim=-1)
        return F.silu(gate) * value
    return _GatedProduct.apply(packed)


class SwiGLU(nn.Module):
    """w3(norm(SiLU(w1 x) * (w2 x))), with w1 and w2 packed into one product.

    Args:
        embed_dims: Width D of input and output.
        hidden_dims: Hidden width H.
        norm: LayerNorm on the hidden product (EVA-02 B and L).
    """

    def __init__(self, embed_dims: int, hidden_dims: int, *, norm: bool = False) -> None:
        super().__init__()
        self.w12 = Linear(embed_dims, 2 * hidden_dims)  # rows 0..H-1 are the SiLU branch
        self.norm = LayerNorm(hidden_dims) if norm else nn.Identity()
        self.w3 = Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(self.norm(gated_product(self.w12(x))))  # [B, N, D]


class MLP(nn.Module):
    """fc2(GELU(fc1 x)) with the exact GELU (EVA-01, EVA-L, EVA-02-CLIP-E).

    Args:
        embed_dims: Width D of input and output.
        hidden_dims: Hidden width H.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = Linear(embed_dims, hidden_dims)
        self.fc2 = Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # [B, N, D]
