"""Soft non-maximum suppression: `softnms` of `mmcv._ext`.

Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code" (arXiv 1704.04503).
"""

import numpy as np
import torch
from torch import Tensor

__all__ = ['softnms']

_NAIVE, _LINEAR, _GAUSSIAN = 0, 1, 2


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lowers the scores of boxes that overlap better ones; the result is by falling new score.

    Equal scores come out in the order of the compiled operator, which swaps the chosen box to the
    front and fills the place of a dropped box with the last one.

    Args:
        boxes: `[N, 4]` on the CPU, corners x1, y1, x2, y2.
        scores: `[N]`.
        dets: `[N, 5]`, written: its first K rows become the kept boxes with their new scores.
        iou_threshold: smallest IoU that counts (naive and linear).
        sigma: width of the penalty exp(-iou^2 / sigma) (gaussian).
        min_score: a box whose score falls below it is dropped.
        method: 0 naive (score to 0), 1 linear (times 1 - iou), 2 gaussian.
        offset: added to widths and heights, 0 or 1.

    Returns:
        `[K]` int64, indices of the kept boxes.
    """
    corners = boxes.detach().float().numpy()
    state = np.empty((6, len(corners)), dtype=np.float32)  # x1, y1, x2, y2, area, score
    state[:4] = corners.T
    state[4] = (state[2] - state[0] + offset) * (state[3] - state[1] + offset)
    state[5] = scores.detach().float().numpy()
    indices = np.arange(len(corners))

    chosen = 0
    while chosen < len(indices):
        best = chosen + int(state[5, chosen:].argmax())
        state[:, [chosen, best]] = state[:, [best, chosen]]
        indices[[chosen, best]] = indices[[best, chosen]]
        others = state[:, chosen + 1 :]
        overlap = _iou_with(state[:, chosen], others, offset)
        others[5] *= _weight(overlap, method=method, threshold=iou_threshold, sigma=sigma)
        order = _drop_in_place(others[5] >= min_score)
        if order is not None:
            order = np.concatenate([np.arange(chosen + 1), order + chosen + 1])
            state, indices = state[:, order], indices[order]
        chosen += 1

    kept = np.concatenate([state[:4], state[5:6]]).T  # [K, 5]
    dets[: len(kept)] = torch.from_numpy(kept).to(dets.dtype)
    return torch.from_numpy(indices)


def _iou_with(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    width = np.minimum(box[2], others[2]) - np.maximum(box[0], others[0]) + offset
    height = np.minimum(box[3], others[3]) - np.maximum(box[1], others[1]) + offset
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    union = box[4] + others[4] - inter
    # Two boxes without area: no overlap, where the compiled operator would make the score NaN.
    return np.divide(inter, union, out=np.zeros_like(inter), where=union != 0)


def _weight(overlap: np.ndarray, *, method: int, threshold: float, sigma: float) -> np.ndarray:
    if method == _GAUSSIAN:
        return np.exp(-(overlap * overlap) / np.float32(sigma))
    lowered = 0 if method == _NAIVE else 1 - overlap
    return np.where(overlap >= threshold, lowered, 1).astype(np.float32)


def _drop_in_place(keep: np.ndarray) -> np.ndarray | None:
    """Order of what stays when each dropped place takes the last one that stays; None if all do."""
    count = int(keep.sum())
    if count == len(keep):
        return None
    order = np.arange(count)
    holes = np.flatnonzero(~keep[:count])
    fillers = count + np.flatnonzero(keep[count:])
    order[holes] = fillers[::-1]
    return order
