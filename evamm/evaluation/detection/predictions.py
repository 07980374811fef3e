"""Predictions of detectors: kept small, written in COCO's format."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_util


@dataclass(frozen=True)
class ImagePredictions:
    """What a detector found in an image.

    Args:
        image_id: Id of the image.
        boxes: float32 [N, 4] as x1, y1, x2, y2 in pixels of the image.
        scores: float32 [N].
        labels: int32 [N].
        runs: Compressed runs of the masks [N], None without masks.
        size: (height, width) of the image.
    """

    image_id: Any
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    runs: list[bytes] | None
    size: tuple[int, int]

    @classmethod
    def from_sample(cls, sample: Mapping, *, with_masks: bool = True) -> 'ImagePredictions':
        """From a data sample of mmdet with `pred_instances`.

        Args:
            sample: The data sample.
            with_masks: Encode its masks, if it has any.
        """
        found = sample['pred_instances']
        masks = found.get('masks') if with_masks else None
        return cls(
            image_id=sample['img_id'],
            boxes=_array(found['bboxes'], np.float32).reshape(-1, 4),
            scores=_array(found['scores'], np.float32),
            labels=_array(found['labels'], np.int32),
            runs=None if masks is None else encode_masks(masks),
            size=tuple(sample['ori_shape'][:2]),
        )

    def rows(
        self, iou_type: str, category_ids: Sequence[int], chosen: np.ndarray | None = None
    ) -> Iterator[dict[str, Any]]:
        """Detections in COCO's format.

        Args:
            iou_type: 'bbox' or 'segm'.
            category_ids: Id of the category of every label.
            chosen: Numbers of the detections, all if None.
        """
        if chosen is None:
            chosen = np.arange(len(self.scores))
        # In double precision, as COCO's tools have them.
        boxes = self.boxes[chosen].astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        columns = (chosen, self.labels[chosen], self.scores[chosen], boxes[:, 2] * boxes[:, 3])
        columns = (column.tolist() for column in (*columns, boxes))
        for number, label, score, area, box in zip(*columns, strict=True):
            row = {
                'image_id': self.image_id,
                'category_id': category_ids[label],
                'bbox': box,
                'score': score,
            }
            if iou_type == 'segm':
                row['segmentation'] = {'size': list(self.size), 'counts': self.runs[number]}
            else:
                row['area'] = area
            yield row


def with_mask_areas(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Detections with masks; the areas are those of the masks, not of the boxes."""
    for row in rows:  # one by one: pycocotools 2.0.11 stumbles over lists of 256
        row['area'] = float(mask_util.area(row['segmentation']))
    return rows


def encode_masks(masks: torch.Tensor | np.ndarray | Sequence[Mapping]) -> list[bytes]:
    """Compressed runs of masks.

    Args:
        masks: bool [N, H, W], or runs already.
    """
    if isinstance(masks, (torch.Tensor, np.ndarray)):
        bitmaps = masks.detach().cpu().numpy() if isinstance(masks, torch.Tensor) else masks
        if not len(bitmaps):
            return []
        bitmaps = bitmaps.astype(bool, copy=False).view(np.uint8)
        # One mask after another: together they would be copied to another order at once.
        return [mask_util.encode(np.asfortranarray(bitmap))['counts'] for bitmap in bitmaps]
    counts = [mask['counts'] for mask in masks]
    return [count.encode() if isinstance(count, str) else count for count in counts]


def _array(values: Any, dtype: type) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().float().numpy()
    return np.asarray(values, dtype)
