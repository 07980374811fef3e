"""Two-dimensional rotary position embedding of EVA-02 (``EVA-02/asuka/rope.py``).

A table is a pure function of the grid: it is never a buffer, never in a state dict and never
changed in a forward pass, so any resolution works at any time.
"""

from functools import lru_cache

import torch
from torch import Tensor


def _axis_angles(length: int, head_dims: int, reference: int) -> Tensor:
    """Angles along one axis; coordinates run from 0 in steps of ``reference / length``."""
    half = head_dims // 2
    freqs = 10000.0 ** -(torch.arange(0, half, 2, dtype=torch.float32) / half)  # [d/4]
    coords = torch.arange(length, dtype=torch.float32) / length * reference  # [L]
    return torch.outer(coords, freqs)  # [L, d/4]


@lru_cache(maxsize=64)
def rope_table(
    height: int,
    width: int,
    head_dims: int,
    *,
    prefix_tokens: int = 1,
    reference: int = 16,
    device: torch.device | str = 'cpu',
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Cosines and sines for a grid of patch tokens, row-major, after ``prefix_tokens`` others.

    The first half of the head dimension turns with the row, the second with the column; adjacent
    channels form a pair. Prefix tokens (the class token) get the identity rotation, so the whole
    sequence can be rotated without slicing it. Tables are cached; callers must not write to them.

    Args:
        height: Rows of the grid.
        width: Columns of the grid.
        head_dims: Channels d of one head; a multiple of 4.
        prefix_tokens: Leading tokens without a position.
        reference: Side of the pre-training grid that coordinates are scaled to; 16 in every
            released model, whatever the patch size.
        device: Where the table lies.
        dtype: Precision of the table; angles are computed in fp32 on the CPU whatever it is.

    Returns:
        Tensor of shape [prefix_tokens + height * width, d / 2, 2]; last axis is (cos, sin).
    """
    # A tensor made under inference_mode could never be saved for a later backward pass.
    with torch.inference_mode(False), torch.no_grad():
        rows = _axis_angles(height, head_dims, reference)  # [H, d/4]
        cols = _axis_angles(width, head_dims, reference)  # [W, d/4]
        angles = torch.cat(
            (
                rows[:, None, :].expand(height, width, -1),
                cols[None, :, :].expand(height, width, -1),
            ),
            dim=-1,
        ).flatten(0, 1)  # [H * W, d/2]
        angles = torch.cat((angles.new_zeros(prefix_tokens, head_dims // 2), angles))  # [N, d/2]
        table = torch.stack((angles.cos(), angles.sin()), dim=-1)  # [N, d/2, 2]
        return table.to(device=device, dtype=dtype)


def apply_rope(x: Tensor, table: Tensor) -> Tensor:
    """Rotates adjacent channel pairs: (a, b) -> (a cos - b sin, b cos + a sin).

    Computed in the precision of ``table`` (fp32 under autocast, as in the official code) and
    returned in the precision of ``x``.

    Args:
        x: Queries and/or keys, [B, N, ..., d] with any number of axes between N and d.
        table: Result of :func:`rope_table`, [N, d/2, 2], or rows of it for every sample,
            [B, N, d/2, 2].

    Returns:
        Tensor of the shape and dtype of ``x``.
    """
    table = table.unflatten(-3, (-1, *(1,) * (x.ndim - 3)))  # [(B,) N, 1.., d/2, 2]
    pairs = x.to(table.dtype).unflatten(-1, (-1, 2))  # [B, N, ..., d/2, 2]
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        # Compilers and exporters fuse the real formula and cannot handle complex numbers.
        a, b = pairs.unbind(-1)
        cos, sin = table.unbind(-1)
        out = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1)
    else:
        # One complex product is a single pass over memory in eager mode.
        out = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    return out.flatten(-2).to(x.dtype)
