"""Non-maximum suppression: `nms` and `nms_match` of `mmcv._ext`.

Both are greedy: boxes are visited from the highest score down, and a visited box that still stands
removes later boxes that overlap it too much. mmcv builds `batched_nms` on top of `nms`.

On a GPU torchvision's kernel does the same; without it every block waits for the device many times.
"""

import torch
from torch import Tensor

from .torchvision_kernels import compiled

__all__ = ['nms', 'nms_match']

# Boxes compared with all later ones at a time; bounds the memory to _BLOCK * N overlaps.
_BLOCK = 256


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that no better box overlaps by more than `iou_threshold`.

    Args:
        bboxes: `[N, 4]`, corners x1, y1, x2, y2.
        scores: `[N]`.
        iou_threshold: a box goes when its IoU with a kept one is strictly larger.
        offset: added to widths and heights, 0 or 1.

    Returns:
        `[K]` int64, by falling score; equal scores keep their order.
    """
    boxes = _as_real(bboxes)
    kernel = compiled('nms', boxes.device.type) if offset == 0 else None
    if kernel is not None:
        return kernel(boxes, scores.to(boxes.dtype), iou_threshold)
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    alive = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for start in range(0, len(boxes), _BLOCK):
        stop = start + _BLOCK
        # Those of this block which no earlier block has removed, [B]
        block = torch.arange(start, min(stop, len(boxes)), device=boxes.device)[alive[start:stop]]
        overlaps = pairwise_iou(boxes[block], boxes[block], offset=offset) > iou_threshold
        kept = block[_greedy_within(overlaps)]
        alive[block] = False
        alive[kept] = True
        later = torch.nonzero(alive[stop:]).squeeze(1) + stop
        overlaps = pairwise_iou(boxes[kept], boxes[later], offset=offset) > iou_threshold
        alive[later[overlaps.any(dim=0)]] = False
    return order[alive]


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of detections: each kept one, followed by those it removes by falling score.

    Args:
        dets: `[N, 5]`, corners x1, y1, x2, y2 and the score.
        iou_threshold: a box joins the group when its IoU is at least this.
    """
    order = dets[:, 4].argsort(descending=True, stable=True)
    boxes = _as_real(dets[:, :4])
    groups = []
    while len(order):
        first, others = order[:1], order[1:]
        joins = (pairwise_iou(boxes[first], boxes[others], offset=0) >= iou_threshold)[0]
        groups.append([int(first), *others[joins].tolist()])
        order = others[~joins]
    return groups


def pairwise_iou(first: Tensor, second: Tensor, *, offset: int) -> Tensor:
    """IoU of every box of `first` `[A, 4]` with every box of `second` `[B, 4]`: `[A, B]`.

    NaN where both boxes have no area, as in the compiled operator; a comparison with it is false.
    """
    x1, y1, x2, y2 = first[:, :, None].unbind(dim=1)  # [A, 1] each
    left, top, right, bottom = second.unbind(dim=1)  # [B] each
    width = (torch.minimum(x2, right) - torch.maximum(x1, left) + offset).clamp(min=0)  # [A, B]
    height = (torch.minimum(y2, bottom) - torch.maximum(y1, top) + offset).clamp(min=0)  # [A, B]
    inter = width * height
    first_area = (x2 - x1 + offset) * (y2 - y1 + offset)
    second_area = (right - left + offset) * (bottom - top + offset)
    return inter / (first_area + second_area - inter)


def _greedy_within(overlaps: Tensor) -> Tensor:
    """Which of B boxes, sorted by score, survive the greedy rule: `[B]` bool.

    A box survives when no surviving earlier box overlaps it. Applying this rule to all boxes at
    once, again and again, settles box i after at most i rounds and usually after a few.

    Args:
        overlaps: `[B, B]` bool, symmetric.
    """
    overlaps = overlaps.triu(diagonal=1)
    kept = torch.ones(len(overlaps), dtype=torch.bool, device=overlaps.device)
    while True:
        updated = ~(overlaps & kept[:, None]).any(dim=0)
        if torch.equal(updated, kept):
            return kept
        kept = updated


def _as_real(boxes: Tensor) -> Tensor:
    # Half precision cannot even hold the pixel coordinates of a large image.
    return boxes if boxes.dtype == torch.float64 else boxes.float()
