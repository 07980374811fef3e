"""Category after category, the numbers are those of all at once."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from random_scenes import scenes

from evamm.datasets.detection.bad_data import BadData
from evamm.evaluation.detection import by_category
from evamm.evaluation.detection.average_precision import evaluate
from evamm.evaluation.detection.ground_truth import GroundTruth
from evamm.evaluation.detection.predictions import ImagePredictions, with_mask_areas

COPIES = 40


@pytest.fixture(scope='module')
def crowded(tmp_path_factory):
    """Annotations, and hundreds of detections in an image, as soft-NMS leaves them."""
    rng = np.random.default_rng(3)
    truth, samples = scenes(rng, images=10, classes=3)
    for sample in samples:
        found = sample['pred_instances']
        count = len(found['scores']) * COPIES
        order = torch.from_numpy(rng.permutation(count))
        for key, values in found.items():
            found[key] = torch.cat([values] * COPIES)[order]
        found['bboxes'] += torch.from_numpy(rng.normal(0, 3, (count, 4))).float()
        # Many are equal, also around the hundredth place.
        found['scores'] = torch.from_numpy(rng.integers(1, 30, count) / 32).float()
    path = tmp_path_factory.mktemp('crowded') / 'truth.json'
    path.write_text(json.dumps(truth))
    meta = {'classes': [entry['name'] for entry in truth['categories']]}
    part = GroundTruth(str(path), meta, BadData('truth'), with_mask=True).part(
        {sample['img_id'] for sample in samples}
    )
    return part, [ImagePredictions.from_sample(sample) for sample in samples]


@pytest.mark.parametrize('max_dets', [100, 7])
@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_the_numbers_are_the_same_to_the_last_bit(crowded, monkeypatch, iou_type, max_dets):
    truth, predictions = crowded
    rows = [row for image in predictions for row in image.rows(iou_type, truth.category_ids)]
    per_class = Counter((row['image_id'], row['category_id']) for row in rows)
    assert max(per_class.values()) > 150
    rows = with_mask_areas(rows) if iou_type == 'segm' else rows
    expected = evaluate(
        truth.images, truth.rows(iou_type), rows, truth.category_ids, iou_type, max_dets
    )
    given = []

    def spy(images, annotations, detections, *args, **options):
        given.append(Counter((row['image_id'], row['category_id']) for row in detections))
        return evaluate(images, annotations, detections, *args, **options)

    monkeypatch.setattr(by_category, 'evaluate', spy)
    found = by_category.curves_by_category(iou_type, predictions, truth, max_dets)
    np.testing.assert_array_equal(found.precision, expected.precision)
    np.testing.assert_array_equal(found.recall, expected.recall)
    # No more than that is in memory at a time; the last category is never annotated.
    assert [len({category for _, category in counts}) for counts in given] == [1, 1]
    assert max(max(counts.values()) for counts in given) == max_dets


def test_nothing_predicted_is_nothing_found(crowded):
    truth, predictions = crowded
    empty = [
        ImagePredictions(
            image.image_id, image.boxes[:0], image.scores[:0], image.labels[:0], [], (1, 1)
        )
        for image in predictions
    ]
    curves = by_category.curves_by_category('segm', empty, truth, 100)
    assert curves.average_precision() == curves.average_recall() == 0
