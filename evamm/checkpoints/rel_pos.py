"""How tables of decomposed relative positions follow another grid: the two official rules.

Both are linear in the table, so each is a fixed matrix. Official: ``get_rel_pos`` in
``EVA-01/det/detectron2/modeling/backbone/utils.py``, modes "vitdet" and "beit".
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REL_POS_RULES = ('linear', 'geometric')
_RATIO = 1.0903078  # of neighbouring distances, in every released model


def rel_pos_map(
    source: int,
    target: int,
    rule: str = 'linear',
    *,
    device: torch.device | str = 'cpu',
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """The matrix that resizes a table of relative positions.

    ``'linear'`` stretches the table (``align_corners=False``). ``'geometric'`` lets the stored
    vectors lie at distances 0, 1, 1 + q, 1 + q + q^2, ... with q = 1.0903078 on both sides, lays a
    cubic spline (not-a-knot, as scipy's) through them and reads it at the wanted whole distances.

    Args:
        source: Rows of the stored table, 2g - 1.
        target: Wanted rows, 2g' - 1.
        rule: ``'linear'`` or ``'geometric'``.
        device: Where the matrix lies.
        dtype: Precision of the matrix; it is computed in float64 on the CPU whatever it is.

    Returns:
        [target, source], cached: do not write to it.

    Raises:
        ValueError: The rule is unknown, or a spline has too few points.
    """
    if rule not in REL_POS_RULES:
        raise ValueError(f'rule={rule!r} of relative positions is unknown; use {REL_POS_RULES}.')
    if rule == 'geometric' and source < 5:
        raise ValueError(
            f"rule='geometric' needs a table for 3 tokens along an axis or more, got one of "
            f"{source} rows; use 'linear'."
        )
    return _make_map(source, target, rule, torch.device(device), dtype)


@lru_cache(maxsize=64)
def _make_map(
    source: int, target: int, rule: str, device: torch.device, dtype: torch.dtype
) -> Tensor:
    # A tensor made under inference_mode could never be saved for a later backward pass.
    with torch.inference_mode(False), torch.no_grad():
        if rule == 'linear':
            unit = torch.eye(source, dtype=torch.float64, device='cpu')[None]
            matrix = F.interpolate(unit, size=target, mode='linear')[0].t().contiguous()
        else:
            steps = np.cumsum(_RATIO ** np.arange(source // 2))
            stored = np.concatenate((-steps[::-1], [0.0], steps))
            wanted = np.arange(target) - float(target // 2)
            matrix = torch.from_numpy(_cubic_spline(stored, wanted))
        return matrix.to(device=device, dtype=dtype)


@torch.compiler.assume_constant_result  # a compiler must not trace the making of them
def rel_pos_maps(
    stored: tuple[int, int],
    wanted: tuple[int, int],
    rule: str,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
) -> tuple[Tensor | None, Tensor | None]:
    """:func:`rel_pos_map` from one grid (h, w) to another, for each axis; None where they agree."""
    return tuple(
        None
        if source == target
        else rel_pos_map(2 * source - 1, 2 * target - 1, rule, device=device, dtype=dtype)
        for source, target in zip(stored, wanted, strict=True)
    )


def _cubic_spline(points: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Not-a-knot cubic spline as a matrix from values at ``points`` to values ``at`` others.

    Outside the points the first or last piece goes on.
    """
    count, gaps = len(points), np.diff(points)
    # Second derivatives m solve ``left @ m = right @ values``.
    left, right = np.zeros((count, count)), np.zeros((count, count))
    for i in range(1, count - 1):
        before, after = gaps[i - 1], gaps[i]
        left[i, i - 1 : i + 2] = before, 2 * (before + after), after
        right[i, i - 1 : i + 2] = 6 / before, -6 / before - 6 / after, 6 / after
    # The third derivative does not jump at the second and at the last but one point.
    left[0, :3] = 1 / gaps[0], -1 / gaps[0] - 1 / gaps[1], 1 / gaps[1]
    left[-1, -3:] = 1 / gaps[-2], -1 / gaps[-2] - 1 / gaps[-1], 1 / gaps[-1]
    second = np.linalg.solve(left, right)
    piece = np.clip(np.searchsorted(points, at, side='right') - 1, 0, count - 2)
    gap = gaps[piece, None]
    b = (at[:, None] - points[piece, None]) / gap  # place inside the piece, 0 to 1
    a = 1 - b
    values = np.eye(count)
    linear = a * values[piece] + b * values[piece + 1]
    curved = (a**3 - a) * second[piece] + (b**3 - b) * second[piece + 1]
    return linear + curved * gap**2 / 6


def resize_rel_pos(rel_pos: Tensor, length: int, rule: str = 'linear') -> Tensor:
    """Resizes decomposed relative-position vectors (ViTDet).

    Args:
        rel_pos: [2g - 1, d], one vector per distance along an axis.
        length: Wanted number of distances, 2g' - 1.
        rule: See :func:`rel_pos_map`.

    Returns:
        [2g' - 1, d] in the dtype of ``rel_pos``.
    """
    if rel_pos.shape[0] == length:
        return rel_pos
    resize = rel_pos_map(rel_pos.shape[0], length, rule).to(rel_pos.device)
    return (resize @ rel_pos.double()).to(rel_pos.dtype)
