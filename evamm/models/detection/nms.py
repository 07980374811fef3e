"""Non-maximum suppression for each class by itself."""

import torch
from mmcv.ops import nms
from torch import Tensor


def class_wise_nms(boxes: Tensor, scores: Tensor, classes: Tensor, iou_threshold: float) -> Tensor:
    """Boxes that no better box of their class overlaps by more than a threshold.

    All classes at once, each shifted to a place of its own, unless there are many boxes. The shift
    costs digits, so the limit is the one of torchvision, which the official detector calls.

    Args:
        boxes: [N, 4], not negative.
        scores: [N].
        classes: [N].
        iou_threshold: A box goes if its IoU is larger.

    Returns:
        Indices, by falling score.
    """
    if not len(boxes):
        return classes.new_zeros(0)
    boxes, scores = boxes.float(), scores.float()
    if len(boxes) <= (1000 if boxes.device.type == 'cpu' else 5000):
        return nms(shift_classes(boxes, classes), scores, iou_threshold)[1]
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for label in classes.unique():
        (members,) = (classes == label).nonzero(as_tuple=True)
        kept[members[nms(boxes[members].contiguous(), scores[members], iou_threshold)[1]]] = True
    (index,) = kept.nonzero(as_tuple=True)
    return index[scores[index].argsort(descending=True)]


def shift_classes(boxes: Tensor, classes: Tensor) -> Tensor:
    """Boxes [N, 4] moved so that those of different classes cannot overlap."""
    return boxes + (classes.to(boxes) * (boxes.max() + 1))[:, None]
