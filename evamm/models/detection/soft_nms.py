"""Soft non-maximum suppression of all classes at once."""

import torch
from torch import Tensor

from .nms import shift_classes

METHODS = ('linear', 'gaussian')
_CHECK_EVERY = 16  # rounds between looking whether a box is left, which waits for the device


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    *,
    method: str = 'linear',
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 1e-3,
    class_wise: bool = True,
) -> tuple[Tensor, Tensor]:
    """Lowers the scores of boxes that overlap better ones (paper 1704.04503).

    What mmcv's ``soft_nms`` gives for boxes shifted apart by class, as the official detectors call
    it, on any device: every round settles the best box left of every class.

    Args:
        boxes: [N, 4], not negative.
        scores: [N].
        labels: [N].
        method: ``'linear'``: times 1 - IoU from ``iou_threshold`` on; ``'gaussian'``: times
            exp(-IoU^2 / sigma).
        iou_threshold: Smallest IoU that counts, if linear.
        sigma: Width, if gaussian.
        min_score: A box whose score falls below goes. The best of all stays.
        class_wise: Only boxes of the same class lower each other.

    Returns:
        New scores and indices of the boxes that stay, by falling new score.

    Raises:
        ValueError: If the method is unknown.
    """
    if method not in METHODS:
        raise ValueError(f'soft_nms: method={method!r} is unknown; use one of {METHODS}.')
    if not len(boxes):
        return scores, labels
    best = torch.zeros_like(scores, dtype=torch.bool)
    best[scores.argmax()] = True
    (index,) = ((scores >= min_score) | best).nonzero(as_tuple=True)
    if class_wise:
        boxes = shift_classes(boxes, labels)
    groups = _Groups(boxes[index], scores[index], labels[index] if class_wise else None)
    done = torch.full_like(groups.scores, -torch.inf)
    for round_number in range(groups.scores.shape[1]):
        if round_number % _CHECK_EVERY == 0 and not (groups.scores > -torch.inf).any():
            break
        score, place = groups.scores.max(dim=1, keepdim=True)  # [C, 1]
        done.scatter_(1, place, done.gather(1, place).maximum(score))
        overlap = groups.overlap_with(place)
        if method == 'linear':
            weight = torch.where(overlap >= iou_threshold, 1 - overlap, 1)
        else:
            weight = torch.exp(-(overlap * overlap) / sigma)
        lowered = groups.scores * weight
        # Not `lowered < min_score`: minus infinity times 0 is no number.
        lowered = lowered.masked_fill(~(lowered >= min_score), -torch.inf)
        groups.scores = lowered.scatter(1, place, -torch.inf)
    scores = done[groups.row, groups.column]  # [M]
    (kept,) = (scores > -torch.inf).nonzero(as_tuple=True)
    kept = kept[scores[kept].argsort(descending=True, stable=True)]
    return scores[kept], index[groups.order[kept]]


class _Groups:
    """Boxes of every class in a row of their own, filled up with nothing.

    Attributes:
        order: Boxes by class, [M].
        row, column: Places of the boxes in that order, [M].
        boxes: [C, n, 4].
        scores: [C, n], minus infinity where there is no box.
    """

    def __init__(self, boxes: Tensor, scores: Tensor, labels: Tensor | None) -> None:
        labels = torch.zeros_like(scores, dtype=torch.long) if labels is None else labels
        labels, self.order = labels.sort(stable=True)
        _, self.row, counts = labels.unique_consecutive(return_inverse=True, return_counts=True)
        first = counts.cumsum(0) - counts
        self.column = torch.arange(len(labels), device=labels.device) - first[self.row]
        shape = (len(counts), int(counts.max()))
        self.boxes = boxes.new_zeros(*shape, 4)
        self.boxes[self.row, self.column] = boxes[self.order]
        self.scores = scores.new_full(shape, -torch.inf)
        self.scores[self.row, self.column] = scores[self.order]
        self._areas = (self.boxes[..., 2:] - self.boxes[..., :2]).prod(dim=-1)  # [C, n]

    def overlap_with(self, place: Tensor) -> Tensor:
        """IoU of one box of every row, at `place` [C, 1], with all of the row: [C, n]."""
        chosen = self.boxes.gather(1, place[..., None].expand(-1, -1, 4))  # [C, 1, 4]
        top_left = torch.maximum(chosen[..., :2], self.boxes[..., :2])
        bottom_right = torch.minimum(chosen[..., 2:], self.boxes[..., 2:])
        inter = (bottom_right - top_left).clamp_(min=0).prod(dim=-1)
        union = self._areas.gather(1, place) + self._areas - inter
        return torch.where(union > 0, inter / union, 0)
