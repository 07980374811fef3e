"""Boxes: overlap, and the four numbers that turn one box into another."""

import math
from collections.abc import Sequence

import torch
from mmdet.models.task_modules.coders import BaseBBoxCoder
from torch import Tensor

from evamm.registry import TASK_UTILS

# A box grows at most from 16 to 1000 pixels in one step.
_LARGEST_LOG_SCALE = math.log(1000 / 16)


def box_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of every box of [M, 4] with every box of [N, 4]: [M, N]; 0 where nothing overlaps."""
    sides = []
    for low, high in ((0, 2), (1, 3)):  # one side after the other takes less memory
        end = torch.minimum(first[:, None, high], second[:, high])  # [M, N]
        sides.append((end - torch.maximum(first[:, None, low], second[:, low])).clamp_(min=0))
    inter = sides[0].mul_(sides[1])
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(dim=1) for boxes in (first, second)]
    return torch.where(inter > 0, inter / (areas[0][:, None] + areas[1] - inter), 0)


def clip_boxes(boxes: Tensor, size: Tensor) -> Tensor:
    """Clips boxes [..., 4] to an image of `size` [..., 2] (height, width)."""
    limit = size.flip(-1)
    limit = torch.cat((limit, limit), dim=-1).to(boxes)  # width, height, width, height
    return torch.minimum(boxes.clamp(min=0), limit)


def nonempty(boxes: Tensor, min_size: float = 0.0) -> Tensor:
    """Which of the boxes [..., 4] are wider and higher than `min_size`."""
    return (boxes[..., 2:] - boxes[..., :2] > min_size).all(dim=-1)


def image_sizes(metas: Sequence[dict], like: Tensor) -> Tensor:
    """Height and width of every image before padding, [B, 2]."""
    return like.new_tensor([meta['img_shape'][:2] for meta in metas])


@TASK_UTILS.register_module()
class BoxDeltaCoder(BaseBBoxCoder):
    """Shift of the centre in box sizes and logarithm of the growth, times weights.

    As mmdet's ``DeltaXYWHBBoxCoder`` with ``target_stds = 1 / weights``, but only growth is
    limited when boxes are decoded, not shrinking, and nothing is clipped to the image.
    Official: ``detectron2/modeling/box_regression.py``.

    Args:
        weights: Factors of dx, dy, dw, dh.
    """

    def __init__(self, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        super().__init__()
        self.weights = tuple(map(float, weights))

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """Deltas [N, 4] that lead from boxes [N, 4] to others [N, 4]."""
        size, gt_size = (boxes[:, 2:] - boxes[:, :2] for boxes in (bboxes, gt_bboxes))
        shift = gt_bboxes[:, :2] + 0.5 * gt_size - (bboxes[:, :2] + 0.5 * size)
        weights = bboxes.new_tensor(self.weights)
        return torch.cat((shift / size, torch.log(gt_size / size)), dim=1) * weights

    def decode(
        self, bboxes: Tensor, pred_bboxes: Tensor, max_shape: Sequence[int] | None = None
    ) -> Tensor:
        """Applies deltas, [..., 4], to boxes, [..., 4].

        Args:
            bboxes: Corners x1, y1, x2, y2.
            pred_bboxes: Deltas; computed with in float32.
            max_shape: Height and width of the image to cut the result at; None does not cut.
        """
        deltas = pred_bboxes / pred_bboxes.new_tensor(self.weights, dtype=torch.float32)
        bboxes = bboxes.to(deltas)
        size = bboxes[..., 2:] - bboxes[..., :2]
        centre = bboxes[..., :2] + 0.5 * size + deltas[..., :2] * size
        half = 0.5 * (size * deltas[..., 2:].clamp(max=_LARGEST_LOG_SCALE).exp())
        boxes = torch.cat((centre - half, centre + half), dim=-1)
        if max_shape is None:
            return boxes
        return clip_boxes(boxes, boxes.new_tensor(max_shape[:2]))
