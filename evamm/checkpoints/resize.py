"""How stored tensors follow another image or patch size: the rules of the official code."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import CheckpointError


def square_grid(rows: int) -> tuple[int, int] | None:
    """Grid of ``rows`` patches if it is a square, else None."""
    side = math.isqrt(max(rows, 0))
    return (side, side) if side and side * side == rows else None


def resize_pos_embed(
    pos_embed: Tensor,
    target_grid: tuple[int, int],
    source_grid: tuple[int, int] | None = None,
    prefix_tokens: int = 1,
) -> Tensor:
    """Resizes the patch rows of a position embedding; the class row is kept as it is.

    Bicubic, ``align_corners=False``, no antialiasing, computed in fp32 or better
    (``EVA-02/asuka/run_class_finetuning.py``). timm antialiases, which gives other numbers.

    Args:
        pos_embed: [1, prefix_tokens + h * w, D].
        target_grid: Wanted grid (h', w'), square or not.
        source_grid: Stored grid (h, w); None for a square one.
        prefix_tokens: Leading rows without a position.

    Returns:
        [1, prefix_tokens + h' * w', D] in the dtype of ``pos_embed``.

    Raises:
        CheckpointError: If the stored rows form no such grid.
    """
    rows = pos_embed.shape[1] - prefix_tokens
    grid = source_grid or square_grid(rows)
    if grid is None or grid[0] * grid[1] != rows:
        raise CheckpointError(
            f'pos_embed has {rows} patch rows, which is no '
            f'{"square grid" if source_grid is None else f"{grid[0]}x{grid[1]} grid"}, so it '
            'cannot be resized; load it into a model of the image size it was saved from.'
        )
    if tuple(grid) == tuple(target_grid):
        return pos_embed
    prefix, patches = pos_embed[:, :prefix_tokens], pos_embed[:, prefix_tokens:]
    patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
    patches = patches.unflatten(1, grid).permute(0, 3, 1, 2)  # [1, D, h, w]
    patches = F.interpolate(patches, size=target_grid, mode='bicubic', align_corners=False)
    patches = patches.flatten(2).transpose(1, 2).to(pos_embed.dtype)  # [1, h' * w', D]
    return torch.cat((prefix, patches), dim=1)


def resize_patch_kernel(kernel: Tensor, patch_size: int | tuple[int, int]) -> Tensor:
    """Resizes a patch-embedding kernel.

    Plain bicubic, ``align_corners=False``, computed and returned in fp32
    (``EVA-01/eva/interpolate_patch_14to16.py``); no correction of the amplitude and no
    pseudo-inverse (which is what timm does).

    Args:
        kernel: [D, C, p, p].
        patch_size: Wanted side p' or sides.

    Returns:
        [D, C, p', p'] in fp32, or ``kernel`` itself if it has that size already.
    """
    size = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
    if tuple(kernel.shape[-2:]) == size:
        return kernel
    return F.interpolate(kernel.float(), size=size, mode='bicubic', align_corners=False)
