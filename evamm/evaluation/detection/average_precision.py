"""Average precision of detections against annotations, by faster-coco-eval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

# Areas of instances in pixels, as COCO has them: small, medium, large.
AREAS = ('all', 'small', 'medium', 'large')


def require_faster_coco_eval() -> None:
    """
    Raises:
        ImportError: The package is not there; names the extra that brings it.
    """
    if find_spec('faster_coco_eval') is None:
        raise ImportError(
            'Detection is evaluated by faster-coco-eval, which is not installed: '
            'pip install "evamm[detection]" or pip install faster-coco-eval.'
        )


@dataclass(frozen=True)
class Curves:
    """Precision and recall.

    Args:
        precision: [10 IoU thresholds, 101 recalls, categories, 4 areas] with at most `max_dets`
            detections per image and category; -1 where there is nothing to find.
        recall: [10 IoU thresholds, categories, 4 areas].
    """

    precision: np.ndarray
    recall: np.ndarray

    def average_precision(
        self,
        threshold: float | None = None,
        area: str = 'all',
        categories: Sequence[int] | None = None,
    ) -> float:
        """Mean over thresholds, recalls and categories; -1 if there is nothing to find.

        Args:
            threshold: One IoU threshold, all if None.
            area: One of `AREAS`.
            categories: Places of the categories, all if None.
        """
        values = self.precision[..., AREAS.index(area)]
        if categories is not None:
            values = values[:, :, list(categories)]
        if threshold is not None:
            values = values[[round((threshold - 0.5) / 0.05)]]
        return _mean(values)

    def average_recall(self, area: str = 'all') -> float:
        """Mean over thresholds and categories; -1 if there is nothing to find."""
        return _mean(self.recall[..., AREAS.index(area)])


def _mean(values: np.ndarray) -> float:
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def evaluate(
    images: Sequence[Mapping[str, Any]],
    annotations: list[dict[str, Any]],
    detections: list[dict[str, Any]],
    category_ids: Sequence[int],
    iou_type: str,
    max_dets: int,
    *,
    federated: bool = False,
) -> Curves:
    """Compare detections with annotations; both are numbered and changed in the course.

    Args:
        images: `id`, `height`, `width` of every image; if `federated` also
            `not_exhaustive_category_ids`.
        annotations: `image_id`, `category_id`, `bbox` (x, y, width, height), `area`, `iscrowd`
            and, for masks, `segmentation`.
        detections: The same with `score` in place of `iscrowd`.
        category_ids: The categories, in the order of the result.
        iou_type: 'bbox' or 'segm'.
        max_dets: Detections of an image and a category that count, the best ones.
        federated: A detection that matches nothing is no mistake in an image whose category is
            not annotated exhaustively (LVIS).
    """
    from faster_coco_eval import COCO, COCOeval_faster

    categories = [{'id': number, 'name': str(number)} for number in category_ids]
    if federated:  # asked for, used only to sort summaries
        images = [{'neg_category_ids': list(category_ids), **image} for image in images]
        categories = [{'frequency': 'f', **category} for category in categories]
    sides = []
    for rows, common in ((annotations, {}), (detections, {'iscrowd': 0})):
        for number, row in enumerate(rows, 1):
            # Not from 0: an annotation with this number would count as one without a match.
            row.update(common, id=number)
        content = {'images': images, 'annotations': rows, 'categories': categories}
        sides.append(COCO(content, print_function=_silent))
    evaluation = COCOeval_faster(
        *sides, iou_type, print_function=_silent, lvis_style=federated, separate_eval=True
    )
    evaluation.params.catIds = list(category_ids)
    evaluation.params.imgIds = [image['id'] for image in images]
    evaluation.params.maxDets = [max_dets]
    evaluation.evaluate()
    evaluation.accumulate()
    # Sorted by their ids there.
    places = np.argsort(np.argsort(list(category_ids)))
    precision = np.asarray(evaluation.eval['precision'])[..., 0][:, :, places]
    recall = np.asarray(evaluation.eval['recall'])[..., 0][:, places]
    return Curves(precision, recall)


def _silent(*_: Any) -> None:
    """faster-coco-eval reports every step."""
