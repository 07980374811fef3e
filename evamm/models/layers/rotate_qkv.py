"""Rotary positions written into the packed result of the QKV product."""

import torch
from torch import Tensor

from .rope import apply_rope


def _rotate_into(out: Tensor, x: Tensor, turn: Tensor) -> None:
    """``out = x * turn`` for channel pairs as complex numbers, in the precision of ``turn``."""
    if x.dtype == turn.real.dtype and x.stride(-1) == 1 and out.stride(-1) == 1:
        pairs, target = x.unflatten(-1, (-1, 2)), out.unflatten(-1, (-1, 2))
        torch.mul(torch.view_as_complex(pairs), turn, out=torch.view_as_complex(target))
    else:
        pairs = x.to(turn.real.dtype).contiguous().unflatten(-1, (-1, 2))
        out.copy_(torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2))


def _as_complex(table: Tensor) -> Tensor:
    """[N, d/2, 2] or [B, N, d/2, 2] as complex numbers that fit [B, N, h, d/2]."""
    return torch.view_as_complex(table).unsqueeze(-2)


class _RotateQKV(torch.autograd.Function):
    """Rotates q and k where they lie; the packed tensor is used up.

    Nothing is saved but the table: the backward pass of a rotation is the rotation back. One buffer
    receives all three gradients, instead of being joined from parts.
    """

    @staticmethod
    def forward(ctx: object, qkv: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(table)
        q, k, v = qkv.detach().unbind(2)
        turn = _as_complex(table)
        _rotate_into(q, q, turn)
        _rotate_into(k, k, turn)
        return q, k, v

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, None]:
        (table,) = ctx.saved_tensors
        grad_q, grad_k, grad_v = grads
        if torch.is_grad_enabled():  # second derivatives: the formula that autograd knows
            back = table * table.new_tensor((1.0, -1.0))
            rotated = [apply_rope(grad, back) for grad in (grad_q, grad_k)]
            return torch.stack((*rotated, grad_v), dim=2), None
        back = _as_complex(table).conj().resolve_conj()
        packed = grad_v.new_empty((*grad_v.shape[:2], 3, *grad_v.shape[2:]))  # [B, N, 3, h, d]
        out_q, out_k, out_v = packed.unbind(2)
        _rotate_into(out_q, grad_q, back)
        _rotate_into(out_k, grad_k, back)
        out_v.copy_(grad_v)
        return packed, None


def rotate_qkv(qkv: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a packed product, the first two rotated.

    In eager mode the rotation happens in the memory of ``qkv``, which must not be used afterwards.

    Args:
        qkv: Result of the packed product, [B, N, 3, h, d].
        table: Rotary table, [N, d/2, 2], or one for each sample, [B, N, d/2, 2].

    Returns:
        q, k and v, each [B, N, h, d].
    """
    if (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or (qkv.is_leaf and qkv.requires_grad)  # somebody's own tensor
    ):
        # split and unbind, not indexing: their backward is one concatenation.
        qk, v = qkv.split((2, 1), dim=2)
        q, k = apply_rope(qk, table).unbind(2)
        return q, k, v.squeeze(2)
    return _RotateQKV.apply(qkv, table)
