"""From scored boxes to detections."""

from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from .boxes import clip_boxes
from .nms import class_wise_nms
from .soft_nms import soft_nms


def select_detections(
    boxes: Tensor, probabilities: Tensor, size: Tensor, cfg: ConfigDict
) -> InstanceData:
    """Detections of one image.

    With ``cfg.soft_nms`` neither NMS nor ``max_per_img`` is applied, and its ``score_thr``, if
    given, takes the place of ``cfg.score_thr``. Official:
    ``detectron2/modeling/roi_heads/fast_rcnn.py``.

    Args:
        boxes: [N, 4].
        probabilities: Of every class, the background last, [N, K + 1].
        size: Height and width of the image, [2].
        cfg: ``score_thr``, ``nms.iou_threshold``, ``max_per_img``, ``soft_nms``.

    Returns:
        ``bboxes``, ``scores``, ``labels``, by falling score.
    """
    finite = boxes.isfinite().all(dim=1) & probabilities.isfinite().all(dim=1)
    boxes = clip_boxes(boxes, size)
    scores = probabilities[:, :-1]
    soft = cfg.get('soft_nms')
    threshold = cfg.score_thr
    if soft and soft.get('score_thr') is not None:
        threshold = soft.score_thr
    row, label = ((scores > threshold) & finite[:, None]).nonzero(as_tuple=True)
    boxes, scores = boxes[row], scores[row, label]
    if soft:
        options = {key: value for key, value in soft.items() if key != 'score_thr'}
        scores, kept = soft_nms(boxes, scores, label, **options)
    else:
        kept = class_wise_nms(boxes, scores, label, cfg.nms.iou_threshold)
        if cfg.max_per_img >= 0:
            kept = kept[: cfg.max_per_img]
        scores = scores[kept]
    return InstanceData(bboxes=boxes[kept], scores=scores, labels=label[kept])


def maskness(probabilities: Tensor, threshold: float) -> Tensor:
    """Mean probability of the pixels above a threshold, [N], of masks [N, S, S]; 0 if none is."""
    inside = probabilities > threshold
    count = inside.sum(dim=(1, 2))
    return (probabilities * inside).sum(dim=(1, 2)) / count.clamp(min=1)
