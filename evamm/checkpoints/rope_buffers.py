"""The RoPE tables that other code bases keep in their state dicts.

evamm computes angles from the grid and stores none; what is written here is for exports.
"""

import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from torch import Tensor

from .errors import CheckpointError, abbreviate
from .resize import square_grid

# (width, blocks) of the released trunks that rotate -> channels of one head.
RELEASED = {(192, 12): 64, (384, 12): 64, (768, 12): 64, (1024, 24): 64}


def official_rope_tables(
    grid: tuple[int, int], head_dims: int = 64, reference: int = 16
) -> tuple[Tensor, Tensor]:
    """The cosine and sine buffers of ``VisionRotaryEmbeddingFast`` (``EVA-02/asuka/rope.py``).

    Args:
        grid: Patches per column and row.
        head_dims: Channels d of one head.
        reference: Side of the pre-training grid.

    Returns:
        Two fp32 tensors [h * w, d]: row angles in the first half of the channels, column angles in
        the second, each angle twice in a row.
    """
    half = head_dims // 2
    freqs = 1.0 / (10000 ** (torch.arange(0, half, 2).float() / half))  # [d/4]
    axes = [
        torch.outer(torch.arange(side) / side * reference, freqs).repeat_interleave(2, dim=1)
        for side in grid
    ]  # [h, d/2], [w, d/2]
    rows = axes[0][:, None].expand(*grid, half)
    cols = axes[1][None].expand(*grid, half)
    angles = torch.cat((rows, cols), dim=-1).flatten(0, 1)  # [h * w, d]
    return angles.cos(), angles.sin()


_expected = lru_cache(maxsize=4)(official_rope_tables)


def is_official_table(name: str, table: Tensor) -> bool:
    """Whether a stored table is the one that evamm computes for its grid.

    Averaged tables of official detectors are off by up to 2e-4 from rounding, half precision by
    5e-4 (bfloat16 4e-3).

    Args:
        name: Name in the file, ending in ``freqs_cos`` or ``freqs_sin``.
        table: [h * w, d] or, in old files, [h, w, d].
    """
    grid = square_grid(table.shape[:-1].numel()) if table.ndim in (2, 3) else None
    if grid is None or table.shape[-1] % 4:
        return False
    if table.is_meta:
        return True
    cos, sin = _expected(grid, table.shape[-1])
    wanted = cos if name.endswith('freqs_cos') else sin
    return bool((table.float().reshape(wanted.shape) - wanted).abs().amax() < 1e-2)


def warn_of_other_angles(names: Iterable[str]) -> None:
    """Says in one sentence that a file's own tables are not those of evamm, if there are any."""
    names = list(names)
    if names:
        warnings.warn(
            f'{abbreviate(names, 2)} of the file hold other angles than evamm computes: the model '
            'that wrote it rotated in another way, so the outputs will not be its own.',
            stacklevel=5,
        )


def rope_buffers(
    state_dict: Mapping[str, Tensor], shared: str, blocks: str, head_dims: int | None
) -> dict[str, Tensor]:
    """The tables of the shared module and of every block, in the dtype of the weights.

    Args:
        state_dict: Trunk in canonical names.
        shared: What stands before the names of the shared tables.
        blocks: Name of the list of blocks.
        head_dims: Channels of one attention head; None for a released trunk.

    Raises:
        CheckpointError: The grid is no square, or ``head_dims`` is unknown or impossible.
    """
    numbers = {name.split('.')[1] for name in state_dict if name.startswith('blocks.')}
    head_dims = _checked(head_dims, state_dict['pos_embed'].shape[-1], len(numbers))
    rows = state_dict['pos_embed'].shape[1] - 1
    grid = square_grid(rows)
    if grid is None:
        raise CheckpointError(
            f'pos_embed has {rows} patch rows, which is no square; the official code and '
            'mmpretrain keep square RoPE tables, so resize the file with --img-size first.'
        )
    dtype = state_dict['pos_embed'].dtype
    cos, sin = (table.to(dtype) for table in official_rope_tables(grid, head_dims))
    homes = [shared] + [f'{blocks}.{i}.attn.rope.' for i in sorted(numbers, key=int)]
    # Copies, because safetensors refuses tensors that share memory.
    return {
        f'{home}freqs_{kind}': table.clone()
        for home in homes
        for kind, table in (('cos', cos), ('sin', sin))
    }


def _checked(head_dims: int | None, width: int, depth: int) -> int:
    """``head_dims``, or that of the released trunk of this size."""
    if head_dims is None:
        if (width, depth) not in RELEASED:
            raise CheckpointError(
                f'a trunk of width {width} with {depth} blocks is none of the released ones, so '
                'the channels of its attention heads are not known, and the RoPE tables of the '
                'target need them; pass head_dims (--head-dims), embed_dims / num_heads.'
            )
        return RELEASED[width, depth]
    if head_dims < 4 or head_dims % 4 or width % head_dims:
        raise CheckpointError(
            f'head_dims={head_dims} does not fit a trunk of width {width}: expected a multiple of '
            '4, which RoPE needs, that divides the width.'
        )
    return head_dims
