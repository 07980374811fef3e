"""Windowed attention for high-resolution inputs (ViTDet, paper 2203.16527)."""

import torch.nn.functional as F
from torch import Tensor


def window_partition(x: Tensor, grid: tuple[int, int], size: int) -> tuple[Tensor, tuple[int, int]]:
    """Cuts a token map into non-overlapping square windows.

    A grid that is no multiple of ``size`` is padded with zeros at the bottom and right. As in the
    official detector the padding comes after the norm, so padded tokens take part in the softmax.

    Args:
        x: Tokens, [B, h * w, D], row-major.
        grid: (h, w).
        size: Side of a window in tokens.

    Returns:
        Windows [B * windows, size * size, D] and the padded grid.
    """
    batch, _, dims = x.shape
    height, width = grid
    pad_h, pad_w = -height % size, -width % size
    x = x.view(batch, height, width, dims)
    if pad_h or pad_w:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    height, width = height + pad_h, width + pad_w
    x = x.view(batch, height // size, size, width // size, size, dims)
    return x.transpose(2, 3).reshape(-1, size * size, dims), (height, width)


def window_unpartition(
    x: Tensor, grid: tuple[int, int], padded: tuple[int, int], size: int
) -> Tensor:
    """Undoes :func:`window_partition` and drops the padding.

    Args:
        x: Windows, [B * windows, size * size, D].
        grid: (h, w) before padding.
        padded: Grid after padding.
        size: Side of a window in tokens.

    Returns:
        Tokens, [B, h * w, D].
    """
    rows, cols = padded[0] // size, padded[1] // size
    dims = x.shape[-1]
    x = x.view(-1, rows, cols, size, size, dims).transpose(2, 3)
    x = x.reshape(-1, *padded, dims)[:, : grid[0], : grid[1]]
    return x.reshape(-1, grid[0] * grid[1], dims)
