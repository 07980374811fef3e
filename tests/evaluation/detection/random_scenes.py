"""Random annotations and detections that reach every branch of the protocols."""

import numpy as np
import torch
from pycocotools import mask as mask_util

SIZE = (120, 160)  # height, width


def runs(bitmap: np.ndarray) -> dict:
    """A bitmap as compressed runs with text."""
    encoded = mask_util.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {'size': list(encoded['size']), 'counts': encoded['counts'].decode()}


def ellipse(box: np.ndarray) -> np.ndarray:
    """Bitmap of the ellipse in a box x, y, width, height."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    x, y, width, height = box
    return ((columns - x - width / 2) / width) ** 2 + ((rows - y - height / 2) / height) ** 2 < 0.25


def random_box(rng: np.random.Generator) -> np.ndarray:
    """Boxes of all three sizes."""
    side = rng.choice([rng.uniform(6, 30), rng.uniform(34, 90), rng.uniform(98, 118)])
    width, height = side, min(side * rng.uniform(0.7, 1.2), SIZE[0] - 2)
    return np.array(
        [rng.uniform(0, SIZE[1] - width), rng.uniform(0, SIZE[0] - height), width, height]
    )


def scenes(
    rng: np.random.Generator,
    images: int,
    classes: int,
    *,
    lvis: bool = False,
    first_id: int = 1,
) -> tuple[dict, list[dict]]:
    """An annotation file and data samples with predictions of it.

    Among the images are some without annotations and some without detections. Detections are
    annotations that were moved, some with another class, and boxes from anywhere; many scores are
    equal.
    """
    # Ids with gaps, in a disorder.
    ids = rng.permutation(np.arange(2, 2 + 3 * images, 3)).tolist()
    category_ids = rng.permutation(np.arange(1, classes + 1) * 2).tolist()
    truth = {
        'images': [],
        'annotations': [],
        'categories': [
            {'id': number, 'name': f'class {number}', 'frequency': 'rcf'[number // 2 % 3]}
            for number in sorted(category_ids)
        ],
    }
    samples = []
    for image_id in ids:
        entry = {'id': image_id, 'height': SIZE[0], 'width': SIZE[1], 'file_name': f'{image_id}'}
        boxes = [random_box(rng) for _ in range(rng.integers(0, 7))]
        # The last category is never annotated.
        present = rng.choice(category_ids[:-1], len(boxes)).tolist()
        for box, category in zip(boxes, present):
            bitmap = ellipse(box)
            truth['annotations'].append(
                {
                    'id': len(truth['annotations']) + first_id,
                    'image_id': image_id,
                    'category_id': category,
                    'bbox': box.tolist(),
                    'area': float(bitmap.sum()) * 0.9,
                    'iscrowd': int(not lvis and rng.random() < 0.2),
                    'segmentation': runs(bitmap),
                }
            )
        if lvis:
            absent = [number for number in category_ids if number not in present]
            entry['neg_category_ids'] = rng.permutation(absent)[: classes // 3].tolist()
            known = [*present, *entry['neg_category_ids']]
            entry['not_exhaustive_category_ids'] = rng.permutation(known)[:2].tolist()
        truth['images'].append(entry)
        found, labels = [], []
        for box, category in zip(boxes, present):
            for _ in range(rng.integers(0, 4)):
                found.append(box * rng.normal(1, 0.06, 4))
                other = rng.random() < 0.2
                labels.append(rng.choice(category_ids) if other else category)
        for _ in range(rng.integers(0, 6)):
            found.append(random_box(rng))
            labels.append(rng.choice(category_ids))
        if rng.random() < 0.15:
            found, labels = [], []
        samples.append(_sample(rng, image_id, found, labels, sorted(category_ids)))
    return truth, samples


def _sample(
    rng: np.random.Generator,
    image_id: int,
    boxes: list[np.ndarray],
    labels: list[int],
    category_ids: list[int],
) -> dict:
    stacked = np.array(boxes, np.float32).reshape(-1, 4)
    stacked[:, 2:] += stacked[:, :2]
    masks = np.array([ellipse(box) for box in boxes]).reshape(-1, *SIZE)
    places = [category_ids.index(label) for label in labels]
    return {
        'img_id': image_id,
        'ori_shape': SIZE,
        'pred_instances': {
            'bboxes': torch.from_numpy(stacked),
            'scores': torch.from_numpy(rng.integers(1, 12, len(boxes)).astype(np.float32) / 12),
            'labels': torch.tensor(places, dtype=torch.int64),
            'masks': torch.from_numpy(masks.astype(bool)),
        },
    }
