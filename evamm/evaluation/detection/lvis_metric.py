"""LVIS's average precision, without the `lvis` package."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from evamm.datasets.checks import DataError
from evamm.registry import METRICS

from .average_precision import Curves, evaluate
from .coco_metric import CocoMetric
from .ground_truth import GroundTruth, Part
from .predictions import ImagePredictions, with_mask_areas

_GROUPS = ('r', 'c', 'f')


@METRICS.register_module()
class LVISMetric(CocoMetric):
    """Average precision of boxes and masks after LVIS's protocol.

    Categories are annotated in some images only. A detection counts where its category is
    annotated, or known to be absent (`neg_category_ids`); one that matches nothing does not count
    where the category is not annotated exhaustively (`not_exhaustive_category_ids`).

    Gives `bbox_AP`, `bbox_AP50`, `AP75`, `APs`, `APm`, `APl`, and `APr`, `APc`, `APf` of rare,
    common and frequent categories; the same for `segm`, not rounded.

    Every category is evaluated on its own, with the images in which it counts: all images times
    all categories, as the official tool has them, are 24 million pairs, nearly all of them empty.

    Args:
        ann_file: Annotation file of the data set.
        metric: 'bbox', 'segm' or both.
        classwise: Also give and show the average precision of every class.
        max_dets: Detections of an image that count, the best ones of all categories together
            (official: 300).
        outfile_prefix: See :class:`CocoMetric`.
        format_only: See :class:`CocoMetric`.
        bad_data: See :class:`CocoMetric`.
        max_bad: See :class:`CocoMetric`.
        collect_device: See :class:`CocoMetric`.
        prefix: What the names of the results begin with.
        backend_args: Arguments of the file backend, see mmengine.fileio.
    """

    default_prefix = 'lvis'
    CLASSES_BY_ID = True

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = 'bbox',
        classwise: bool = False,
        max_dets: int = 300,
        outfile_prefix: str | None = None,
        format_only: bool = False,
        bad_data: str = 'skip',
        max_bad: float = 0.01,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(
            ann_file=ann_file,
            metric=metric,
            classwise=classwise,
            max_dets=max_dets,
            outfile_prefix=outfile_prefix,
            format_only=format_only,
            bad_data=bad_data,
            max_bad=max_bad,
            collect_device=collect_device,
            prefix=prefix,
            backend_args=backend_args,
        )

    def _read_truth(self) -> GroundTruth:
        truth = super()._read_truth()
        frequencies = [entry.get('frequency') for entry in truth.categories]
        wrong = [number for number, group in enumerate(frequencies) if group not in _GROUPS]
        if wrong and not self.format_only:
            raise DataError(
                f'{self.ann_file}: category {truth.names[wrong[0]]!r} has no frequency ("r", "c" '
                'or "f"); it is not an annotation file of LVIS, which CocoMetric can evaluate.'
            )
        return truth

    def _evaluate(
        self, iou_type: str, predictions: Sequence[ImagePredictions], truth: Part
    ) -> dict[str, float]:
        curves = federated_curves(iou_type, predictions, truth, self.max_dets)
        values = {
            'AP': curves.average_precision(),
            'AP50': curves.average_precision(0.5),
            'AP75': curves.average_precision(0.75),
            'APs': curves.average_precision(area='small'),
            'APm': curves.average_precision(area='medium'),
            'APl': curves.average_precision(area='large'),
        }
        frequencies = [entry['frequency'] for entry in self._truth.categories]
        for group in _GROUPS:
            places = [place for place, of in enumerate(frequencies) if of == group]
            values[f'AP{group}'] = curves.average_precision(categories=places)
        if self.classwise:
            values.update(self._of_classes(iou_type, curves, truth.names))
        return {f'{iou_type}_{key}': value for key, value in values.items()}


def federated_curves(
    iou_type: str, predictions: Sequence[ImagePredictions], truth: Part, max_dets: int
) -> Curves:
    """Precision and recall of every category on the images in which it counts.

    Args:
        iou_type: 'bbox' or 'segm'.
        predictions: Detections of every image.
        truth: Annotations of these images.
        max_dets: Detections of an image that count.
    """
    annotations: dict[Any, list[dict]] = defaultdict(list)
    counting = {image['id']: set(image.get('neg_category_ids', ())) for image in truth.images}
    for row in truth.rows(iou_type):
        if row['area'] > 0:  # the official tool overlooks what has no area
            annotations[row['category_id']].append(row)
            counting[row['image_id']].add(row['category_id'])
    detections: dict[Any, list[dict]] = defaultdict(list)
    category_ids = np.asarray(truth.category_ids)
    for image in predictions:
        best = np.argsort(-image.scores, kind='stable')[:max_dets]
        counts = np.isin(category_ids[image.labels[best]], list(counting[image.image_id]))
        rows = list(image.rows(iou_type, truth.category_ids, best[counts].tolist()))
        for row in with_mask_areas(rows) if iou_type == 'segm' else rows:
            if row['area'] > 0:
                detections[row['category_id']].append(row)
    images = {image['id']: image for image in truth.images}
    curves = [
        _category_curves(
            iou_type, number, annotations[number], detections[number], images, max_dets
        )
        for number in truth.category_ids
    ]
    return Curves(
        precision=np.concatenate([curve.precision for curve in curves], axis=2),
        recall=np.concatenate([curve.recall for curve in curves], axis=1),
    )


def _category_curves(
    iou_type: str,
    category_id: int,
    annotations: list[dict],
    detections: list[dict],
    images: dict[Any, dict],
    max_dets: int,
) -> Curves:
    if not annotations:
        return Curves(np.full((10, 101, 1, 4), -1.0), np.full((10, 1, 4), -1.0))
    present = sorted({row['image_id'] for rows in (annotations, detections) for row in rows})
    return evaluate(
        [images[number] for number in present],
        annotations,
        detections,
        [category_id],
        iou_type,
        max_dets,
        federated=True,
    )
