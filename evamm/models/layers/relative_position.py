"""Decomposed relative positions of EVA-01's detector (ViTDet; MViTv2, paper 2112.01526).

The logit of a query q at (y, x) and a key k at (y', x') is ``q k / sqrt(d) + q h[y - y'] +
q w[x - x']``, with one table of vectors for each axis; the added terms are not scaled. Official:
``EVA-01/det/detectron2/modeling/backbone/{vit,utils}.py``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .autocast import without_autocast

# Up to this many tokens a matrix of all pairs is small, and faster than longer queries and keys.
_MAX_MATRIX = 1024


def position_vectors(table: Tensor, side: int, resize: Tensor | None = None) -> Tensor:
    """Vectors of all pairs of coordinates along one axis.

    Args:
        table: One vector for every distance, [2g - 1, d]; row g - 1 + n is for a query that is n
            tokens behind its key.
        side: Number of coordinates g' of the axis.
        resize: Map [2g' - 1, 2g - 1] to the distances of that axis; None where g' = g.

    Returns:
        Tensor of shape [g', d, g'], by coordinates of the query and of the key.

    Raises:
        ValueError: If the table is of another size and no map is given.
    """
    if resize is not None:
        # Weights of both signs: their sum must not be rounded to half precision.
        exact = torch.promote_types(table.dtype, torch.float32)
        with without_autocast(table.device.type):
            table = (resize.to(exact) @ table.to(exact)).to(table.dtype)  # [2g' - 1, d]
    if len(table) != 2 * side - 1:
        raise ValueError(
            f'A table of {len(table)} relative positions is for {(len(table) + 1) // 2} tokens '
            f'along an axis, not for {side}.'
        )
    return table.unfold(0, side, 1).flip(-1)  # row y, column y': distance y - y'


def position_logits(
    q: Tensor, rows: Tensor, columns: Tensor, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """What the position of a key adds to the logits of a query.

    Args:
        q: Queries, [B, h * w, heads, d].
        rows: :func:`position_vectors` of the height, [h, d, h].
        columns: The same of the width, [w, d, w].
        grid: (h, w).

    Returns:
        By the row of the key, [B, heads, h * w, h], and by its column, [B, heads, h * w, w].
    """
    q = q.unflatten(1, grid)  # [B, h, w, heads, d]
    by_row = torch.einsum('byxnd,ydk->bnyxk', q, rows)
    by_column = torch.einsum('byxnd,xdk->bnyxk', q, columns)
    return by_row.flatten(2, 3), by_column.flatten(2, 3)


def attend_with_positions(
    q: Tensor, k: Tensor, v: Tensor, by_row: Tensor, by_column: Tensor
) -> Tensor:
    """Attention whose logits have a term for the row and one for the column of the key.

    The terms of few tokens are added as a matrix. For many tokens that matrix, [B, heads, N, N],
    would be most of the memory of a detector (1.3 GB in bfloat16 for one image of 1280 pixels in
    EVA-01): there they become channels of the queries, and the keys get zeros and a one in the
    places of their own row and column, so that a fused kernel sees nothing but a dot product.

    Args:
        q: Queries, [B, heads, N, d].
        k: Keys of the grid (h, w), [B, heads, N, d].
        v: Values, [B, heads, N, d].
        by_row: First result of :func:`position_logits`, [B, heads, N, h].
        by_column: Second result, [B, heads, N, w].

    Returns:
        Tensor of shape [B, heads, N, d].
    """
    height, width, dims = by_row.shape[-1], by_column.shape[-1], q.shape[-1]
    if height * width <= _MAX_MATRIX:
        bias = (by_row[..., :, None] + by_column[..., None, :]).flatten(-2)  # [B, heads, N, N]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    fill = -(dims + height + width) % 8  # what fused kernels ask for
    own_row = torch.eye(height, device=k.device, dtype=k.dtype).repeat_interleave(width, dim=0)
    own_column = torch.eye(width, device=k.device, dtype=k.dtype).repeat(height, 1)
    place = F.pad(torch.cat((own_row, own_column), dim=1), (0, fill))  # [N, h + w + fill]
    q = torch.cat((q * dims**-0.5, by_row, by_column), dim=-1)  # [B, heads, N, d + h + w]
    k = torch.cat((k, place.expand(*k.shape[:2], -1, -1)), dim=-1)
    v = F.pad(v, (0, height + width + fill))  # kernels want one width for all three
    x = F.scaled_dot_product_attention(F.pad(q, (0, fill)), k, v, scale=1.0)
    return x[..., :dims]
