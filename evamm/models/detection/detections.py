"""From scored boxes to detections."""

from collections.abc import Mapping
from inspect import signature

from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from .boxes import clip_boxes
from .nms import class_wise_nms
from .soft_nms import METHODS, soft_nms

MASK_FORMATS = ('bitmap', 'rle')


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


def check_test_cfg(cfg: Mapping) -> None:
    """Looks for settings that would fail in the first batch, or give nothing without a word.

    Raises:
        ValueError: Names the key, what is expected and what was found.
    """

    def check(condition: bool, key: str, expected: str) -> None:
        if not condition:
            raise ValueError(f'test_cfg.rcnn.{key}: expected {expected}, found {cfg.get(key)!r}.')

    share = (int, float)
    threshold = cfg.get('score_thr')
    check(isinstance(threshold, share) and threshold <= 1, 'score_thr', 'a number up to 1')
    threshold = cfg.get('maskness_thr')
    known = isinstance(threshold, share) and not isinstance(threshold, bool) and 0 < threshold < 1
    check(threshold is None or known, 'maskness_thr', 'None or a number between 0 and 1')
    known = cfg.get('mask_format', MASK_FORMATS[0]) in MASK_FORMATS
    check(known, 'mask_format', f'one of {MASK_FORMATS}')
    soft = cfg.get('soft_nms')
    names = (*list(signature(soft_nms).parameters)[3:], 'score_thr')
    check(
        soft is None or (isinstance(soft, Mapping) and set(soft) <= set(names)),
        'soft_nms',
        f'None or a dict with {", ".join(names)}',
    )
    method = (soft or {}).get('method', METHODS[0])
    check(method in METHODS, 'soft_nms', f'a method of {METHODS}')
    if soft:
        return
    nms = cfg.get('nms')
    threshold = nms.get('iou_threshold') if isinstance(nms, Mapping) else None
    known = isinstance(threshold, share) and 0 <= threshold <= 1
    check(known, 'nms', 'a dict with an iou_threshold from 0 to 1, or soft_nms in its place')
    known = isinstance(cfg.get('max_per_img'), int)
    check(known, 'max_per_img', 'a whole number (-1: all), or soft_nms in its place')


def maskness(probabilities: Tensor, threshold: float) -> Tensor:
    """Mean probability of the pixels above a threshold, [N], of masks [N, S, S]; 0 if none is."""
    inside = probabilities > threshold
    count = inside.sum(dim=(1, 2))
    return (probabilities * inside).sum(dim=(1, 2)) / count.clamp(min=1)
