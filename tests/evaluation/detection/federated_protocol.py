"""The protocol of LVIS in plain loops, from its paper (Gupta et al. 2019, sections 2 and 5).

Compared with version 0.5.3 of the `lvis` package on random data: equal to 1e-15.
"""

import numpy as np
from pycocotools import mask as mask_util

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = {'': (0, 1e10), 's': (0, 32**2), 'm': (32**2, 96**2), 'l': (96**2, 1e10)}


def federated_ap(truth, detections, iou_type, max_dets):
    """AP, AP50, AP75, APs, APm, APl, APr, APc, APf."""
    detections = best_of_every_image(detections, max_dets)
    # The package overlooks what has no area, on both sides.
    annotated = [row for row in truth['annotations'] if row['area'] > 0]
    truth = {**truth, 'annotations': annotated}
    for row in detections:
        masks = iou_type == 'segm'
        row['area'] = (
            int(mask_util.area(row['segmentation'])) if masks else np.prod(row['bbox'][2:])
        )
    detections = [row for row in detections if row['area'] > 0]
    curves = {
        (category['id'], size): precision(truth, detections, category['id'], bounds, iou_type)
        for category in truth['categories']
        for size, bounds in AREAS.items()
    }

    def mean(size='', thresholds=slice(None), group='rcf'):
        chosen = [
            curves[category['id'], size][thresholds]
            for category in truth['categories']
            if category['frequency'] in group and curves[category['id'], size] is not None
        ]
        return np.mean(chosen) if chosen else -1

    return {
        'AP': mean(),
        'AP50': mean(thresholds=[0]),
        'AP75': mean(thresholds=[5]),
        **{f'AP{size}': mean(size) for size in 'sml'},
        **{f'AP{group}': mean(group=group) for group in 'rcf'},
    }


def best_of_every_image(detections, max_dets):
    of_images = {}
    for row in detections:
        of_images.setdefault(row['image_id'], []).append(dict(row))
    return [
        row
        for rows in of_images.values()
        for row in sorted(rows, key=lambda row: -row['score'])[:max_dets]
    ]


def precision(truth, detections, category, bounds, iou_type):
    """Precision [10 thresholds, 101 recalls] of a category; None if there is nothing to find."""
    scores, outcomes, wanted = [], [], 0
    for image in sorted(truth['images'], key=lambda image: image['id']):
        annotated = [row for row in truth['annotations'] if row['image_id'] == image['id']]
        present = {row['category_id'] for row in annotated}
        if category not in present and category not in image['neg_category_ids']:
            continue
        annotated = [row for row in annotated if row['category_id'] == category]
        outside = [not bounds[0] <= row['area'] <= bounds[1] for row in annotated]
        order = np.argsort(outside, kind='stable')
        annotated = [annotated[place] for place in order]
        outside = [outside[place] for place in order]
        wanted += len(outside) - sum(outside)
        found = [
            row
            for row in detections
            if row['image_id'] == image['id'] and row['category_id'] == category
        ]
        found.sort(key=lambda row: -row['score'])
        scores += [row['score'] for row in found]
        results = np.zeros((10, len(found)), int)  # 1 right, 0 wrong, -1 does not count
        for level, threshold in enumerate(THRESHOLDS):
            taken = set()
            for number, row in enumerate(found):
                match = best_match(row, annotated, outside, taken, threshold, iou_type)
                if match is not None:
                    taken.add(match)
                    results[level, number] = -1 if outside[match] else 1
                elif (
                    category in image['not_exhaustive_category_ids']
                    or not bounds[0] <= row['area'] <= bounds[1]
                ):
                    results[level, number] = -1
        outcomes.append(results)
    if not wanted:
        return None
    order = np.argsort(-np.array(scores), kind='stable')
    results = np.concatenate(outcomes, 1)[:, order]
    curve = np.zeros((10, 101))
    for level in range(10):
        right = np.cumsum(results[level] == 1)
        wrong = np.cumsum(results[level] == 0)
        values = right / np.maximum(right + wrong, np.finfo(float).tiny)
        for place, recall in enumerate(RECALLS):
            reached = right / wanted >= recall
            curve[level, place] = values[reached].max() if reached.any() else 0
    return curve


def best_match(row, annotated, outside, taken, threshold, iou_type):
    """The free annotation of the largest IoU; one that counts before one that does not."""
    best, match = threshold, None
    for number, other in enumerate(annotated):
        if number in taken:
            continue
        if match is not None and not outside[match] and outside[number]:
            break
        key = 'segmentation' if iou_type == 'segm' else 'bbox'
        iou = mask_util.iou([row[key]], [other[key]], [0])[0, 0]
        if iou >= best:
            best, match = iou, number
    return match
