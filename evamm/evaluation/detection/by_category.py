"""Precision and recall of many detections, one category after another.

All at once, a detection takes 1.5 kB, and soft-NMS leaves thousands of them in an image; and all
images times all categories, as the official tools have them, are 24 million pairs for LVIS, nearly
all of them empty. A category does not depend on the others.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .average_precision import Curves, evaluate
from .ground_truth import Part
from .predictions import ImagePredictions, with_mask_areas


def curves_by_category(
    iou_type: str,
    predictions: Sequence[ImagePredictions],
    truth: Part,
    max_dets: int,
    *,
    federated: bool = False,
) -> Curves:
    """Precision and recall of every category on the images in which it occurs.

    Args:
        iou_type: 'bbox' or 'segm'.
        predictions: Detections of every image.
        truth: Annotations of these images.
        max_dets: Detections that count, the best ones: of an image and a category, or of an image
            if `federated`.
        federated: LVIS: a detection counts where its category is annotated, or known to be absent.
    """
    annotations: dict[Any, list[dict]] = defaultdict(list)
    counting = {image['id']: set(image.get('neg_category_ids', ())) for image in truth.images}
    for row in truth.rows(iou_type):
        if row['area'] > 0 or not federated:  # LVIS's official tool overlooks what has no area
            annotations[row['category_id']].append(row)
            counting[row['image_id']].add(row['category_id'])
    if federated:
        category_ids = np.asarray(truth.category_ids)
        chosen = [
            _best_that_count(image, category_ids, counting[image.image_id], max_dets)
            for image in predictions
        ]
    else:
        chosen = [np.arange(len(image.scores)) for image in predictions]
    images = {image['id']: image for image in truth.images}
    curves = []
    groups = _groups(predictions, chosen, len(truth.category_ids), max_dets)
    for number, group in zip(truth.category_ids, groups, strict=True):
        rows = annotations.pop(number, None)
        if rows is None:
            curves.append(Curves(np.full((10, 101, 1, 4), -1.0), np.full((10, 1, 4), -1.0)))
            continue
        found = [
            row
            for place, best in group
            for row in predictions[place].rows(iou_type, truth.category_ids, best)
        ]
        found = with_mask_areas(found) if iou_type == 'segm' else found
        if federated:
            found = [row for row in found if row['area'] > 0]
        present = sorted({row['image_id'] for side in (rows, found) for row in side})
        present = [images[image_id] for image_id in present]
        curves.append(
            evaluate(present, rows, found, [number], iou_type, max_dets, federated=federated)
        )
    return Curves(
        precision=np.concatenate([curve.precision for curve in curves], axis=2),
        recall=np.concatenate([curve.recall for curve in curves], axis=1),
    )


def _best_that_count(
    image: ImagePredictions, category_ids: np.ndarray, counting: set, max_dets: int
) -> np.ndarray:
    """Numbers of the best detections of an image, without those whose category does not count."""
    best = np.argsort(-image.scores, kind='stable')[:max_dets]
    return best[np.isin(category_ids[image.labels[best]], list(counting))]


def _groups(
    predictions: Sequence[ImagePredictions],
    chosen: Sequence[np.ndarray],
    categories: int,
    max_dets: int,
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Detections of one category after another.

    Yields:
        Places of the images that have some, and the numbers of the best `max_dets` in each, in the
        order in which they were chosen: it decides between equal scores.
    """
    counts = [len(numbers) for numbers in chosen]
    places = np.repeat(np.arange(len(chosen), dtype=np.int32), counts)
    pairs = list(zip(predictions, chosen, strict=True))
    # Also where nothing was predicted at all.
    nothing = np.zeros(0, np.int32)
    labels = np.concatenate([nothing, *(image.labels[best] for image, best in pairs)])
    scores = np.concatenate(
        [nothing.astype(np.float32), *(image.scores[best] for image, best in pairs)]
    )
    numbers = np.concatenate([nothing, *chosen])
    # By category, image and falling score; equal scores stay as they are.
    order = np.lexsort((-scores, places, labels))
    begins = np.ones(len(order), bool)
    begins[1:] = (np.diff(labels[order]) != 0) | (np.diff(places[order]) != 0)
    starts = np.flatnonzero(begins)
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    kept = np.sort(order[ranks < max_dets])
    kept = kept[np.argsort(labels[kept], kind='stable')]
    bounds = np.searchsorted(labels[kept], np.arange(categories + 1))
    for first, last in zip(bounds, bounds[1:]):
        part = kept[first:last]
        if len(part):
            of_images = np.split(part, np.flatnonzero(np.diff(places[part])) + 1)
            yield [(places[rows[0]], numbers[rows]) for rows in of_images]
        else:
            yield []
