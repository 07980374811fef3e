"""Average precision against pycocotools, and against the LVIS protocol written out."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from federated_protocol import federated_ap
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from random_scenes import scenes

from evamm.datasets.checks import DataError
from evamm.evaluation.detection import CocoMetric, LVISMetric, coco_metric

NAMES = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l', 'AR')


def evaluated(metric, truth, samples):
    """Results of a metric that is given the samples in two batches."""
    metric.dataset_meta = {'classes': [entry['name'] for entry in truth['categories']]}
    metric.process(None, samples[:5])
    metric.process(None, samples[5:])
    return metric.evaluate(len(samples))


def by_pycocotools(path, predictions, iou_type, max_dets=100):
    """What pycocotools says about a file of predictions."""
    rows = json.loads(predictions.read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        evaluation = COCOeval(truth, truth.loadRes(rows), iou_type)
        evaluation.params.maxDets = [1, 2, max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [*evaluation.stats[:6], evaluation.stats[8]]


@pytest.mark.parametrize('seed', range(3))
def test_coco_numbers_are_those_of_pycocotools(tmp_path, seed):
    """With crowds, images without annotations or detections, equal scores and all sizes."""
    truth, samples = scenes(np.random.default_rng(seed), images=30, classes=5)
    # No use for a training, but objects that are not found.
    truth['annotations'][3]['bbox'][2] = 0
    truth['annotations'][8]['bbox'][0] = 5000
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    metric = CocoMetric(str(path), ['bbox', 'segm'], outfile_prefix=str(tmp_path / 'found'))
    results = evaluated(metric, truth, samples)
    for iou_type in ('bbox', 'segm'):
        expected = by_pycocotools(str(path), tmp_path / f'found.{iou_type}.json', iou_type)
        found = [results[f'coco/{iou_type}_{name}'] for name in NAMES]
        assert all(0 < value < 1 for value in expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_many_detections_of_an_image_are_cut_by_their_scores(tmp_path):
    """Soft-NMS returns more than COCO counts; pycocotools at 3 needs the values at 3."""
    truth, samples = scenes(np.random.default_rng(1), images=12, classes=2)
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    # Many copies with lower scores, the best ones last.
    for sample in samples:
        found = sample['pred_instances']
        found['scores'] = torch.cat([found['scores'] * 0.5, found['scores']])
        for key in ('bboxes', 'labels', 'masks'):
            found[key] = torch.cat([found[key], found[key]])
    prefix = str(tmp_path / 'found')
    whole = evaluated(CocoMetric(str(path)), truth, samples)
    metric = CocoMetric(str(path), max_dets=3, outfile_prefix=prefix)
    cut = evaluated(metric, truth, samples)
    expected = by_pycocotools(str(path), tmp_path / 'found.bbox.json', 'bbox', 3)
    # pycocotools summarises the first number at 100 detections only.
    found = [cut[f'coco/bbox_{name}'] for name in NAMES[1:]]
    np.testing.assert_allclose(found, expected[1:], rtol=0, atol=1e-9)
    assert cut['coco/bbox_mAP'] < whole['coco/bbox_mAP']


@pytest.mark.parametrize('max_dets', [300, 3])
def test_lvis_numbers_follow_the_protocol(tmp_path, max_dets):
    truth, samples = scenes(np.random.default_rng(3), images=30, classes=8, lvis=True)
    for row in truth['annotations'][::5]:
        row['area'] = 0.0
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    metric = LVISMetric(
        str(path), ['bbox', 'segm'], max_dets=max_dets, outfile_prefix=str(tmp_path / 'found')
    )
    results = evaluated(metric, truth, samples)
    for iou_type in ('bbox', 'segm'):
        rows = json.loads((tmp_path / f'found.{iou_type}.json').read_text())
        expected = federated_ap(truth, rows, iou_type, max_dets)
        assert len(expected) == 9
        for name, value in expected.items():
            found = results[f'lvis/{iou_type}_{name}']
            np.testing.assert_allclose(found, value, rtol=0, atol=1e-9, err_msg=name)


def test_lvis_needs_its_lists_of_absent_and_unfinished_categories(tmp_path):
    """Each of the three rules moves the result."""
    truth, samples = scenes(np.random.default_rng(5), images=30, classes=8, lvis=True)
    path = tmp_path / 'truth.json'
    found = []
    for without in (None, 'neg_category_ids', 'not_exhaustive_category_ids'):
        images = [image if without is None else {**image, without: []} for image in truth['images']]
        path.write_text(json.dumps({**truth, 'images': images}))
        found.append(evaluated(LVISMetric(str(path)), truth, samples)['lvis/bbox_AP'])
    # Fewer images in which a mistake counts; more mistakes that count.
    assert found[1] > found[0] > found[2]


def test_part_of_a_data_set_counts_as_a_whole_and_padding_only_once(tmp_path):
    truth, samples = scenes(np.random.default_rng(2), images=20, classes=3)
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    part = evaluated(CocoMetric(str(path)), truth, [*samples[:9], samples[0], samples[1]])
    ids = {sample['img_id'] for sample in samples[:9]}
    small = {
        **truth,
        'images': [image for image in truth['images'] if image['id'] in ids],
        'annotations': [row for row in truth['annotations'] if row['image_id'] in ids],
    }
    path.write_text(json.dumps(small))
    assert part == evaluated(CocoMetric(str(path)), small, samples[:9])


def test_ids_of_annotations_do_not_matter(tmp_path):
    """Numbers from 0, twice the same, or none: pycocotools loses the annotation 0."""
    path = tmp_path / 'truth.json'
    results = []
    for ids in (lambda n: n + 1, lambda n: n, lambda n: 5):
        truth, samples = scenes(np.random.default_rng(4), images=15, classes=3)
        for number, row in enumerate(truth['annotations']):
            row['id'] = ids(number)
        path.write_text(json.dumps(truth))
        results.append(evaluated(CocoMetric(str(path), ['bbox', 'segm']), truth, samples))
    assert results[0] == results[1] == results[2]


def test_every_class_has_its_own_number(tmp_path):
    """A class's number is that of a file that has no other class."""
    truth, samples = scenes(np.random.default_rng(6), images=25, classes=4)
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    results = evaluated(CocoMetric(str(path), classwise=True), truth, samples)
    number = truth['annotations'][0]['category_id']
    name = f'class {number}'
    alone = {
        **truth,
        'annotations': [row for row in truth['annotations'] if row['category_id'] == number],
    }
    path.write_text(json.dumps(alone))
    expected = evaluated(CocoMetric(str(path)), alone, samples)['coco/bbox_mAP']
    assert results[f'coco/bbox_{name}_precision'] == pytest.approx(expected, abs=1e-12)
    # The class that is never annotated has none.
    values = [results[f'coco/bbox_{entry["name"]}_precision'] for entry in truth['categories']]
    assert values.count(-1) == 1
    assert sum(values) + 1 == pytest.approx(3 * results['coco/bbox_mAP'], abs=1e-9)


def test_classes_are_found_by_name_whatever_the_order_of_the_file(tmp_path):
    truth, samples = scenes(np.random.default_rng(7), images=15, classes=4)
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    expected = evaluated(CocoMetric(str(path)), truth, samples)
    path.write_text(json.dumps({**truth, 'categories': truth['categories'][::-1]}))
    assert evaluated(CocoMetric(str(path)), truth, samples) == expected
    metric = CocoMetric(str(path))
    metric.dataset_meta = {
        'classes': ['other', 'names', 'that', 'differ'],
        'category_ids': [entry['id'] for entry in truth['categories']],
    }
    metric.process(None, samples)
    assert metric.evaluate(len(samples)) == expected
    with pytest.raises(DataError, match='no category 9.*must be the same file'):
        metric.dataset_meta = {**metric.dataset_meta, 'category_ids': [2, 4, 6, 9]}


def test_predictions_can_be_written_where_there_are_no_annotations(tmp_path):
    truth, samples = scenes(np.random.default_rng(9), images=6, classes=3)
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps({**truth, 'annotations': []}))
    prefix = tmp_path / 'found'
    metric = CocoMetric(str(path), ['bbox', 'segm'], format_only=True, outfile_prefix=str(prefix))
    assert evaluated(metric, truth, samples) == {}
    rows = json.loads((tmp_path / 'found.segm.json').read_text())
    assert len(rows) == sum(len(sample['pred_instances']['labels']) for sample in samples)
    assert set(rows[0]) == {'image_id', 'category_id', 'score', 'segmentation'}
    rows = json.loads((tmp_path / 'found.bbox.json').read_text())
    boxes = torch.cat([sample['pred_instances']['bboxes'] for sample in samples]).double()
    boxes[:, 2:] -= boxes[:, :2]
    assert [row['bbox'] for row in rows] == boxes.tolist()
    assert set(rows[0]) == {'image_id', 'category_id', 'bbox', 'score'}
    # No detection at all is a result too.
    empty = [{**sample, 'pred_instances': _nothing()} for sample in samples]
    path.write_text(json.dumps(truth))
    found = evaluated(CocoMetric(str(path), ['bbox', 'segm']), truth, empty)
    assert found['coco/bbox_mAP'] == found['coco/segm_mAP'] == 0


def _nothing():
    return {
        'bboxes': torch.zeros(0, 4),
        'scores': torch.zeros(0),
        'labels': torch.zeros(0, dtype=torch.int64),
        'masks': torch.zeros(0, 120, 160, dtype=torch.bool),
    }


def test_what_does_not_fit_is_one_sentence(tmp_path):
    truth, samples = scenes(np.random.default_rng(9), images=6, classes=3)
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth))
    with pytest.raises(DataError, match='nowhere.json does not exist'):
        CocoMetric(str(tmp_path / 'nowhere.json')).dataset_meta = {'classes': ['a']}
    with pytest.raises(DataError, match=r'does not list 1 of 6 images.*the same file'):
        evaluated(CocoMetric(str(path)), truth, [*samples[:5], {**samples[5], 'img_id': 12345}])
    boxes = [{**sample, 'pred_instances': dict(sample['pred_instances'])} for sample in samples]
    for sample in boxes:
        del sample['pred_instances']['masks']
    with pytest.raises(DataError, match='predicts no masks'):
        evaluated(CocoMetric(str(path), 'segm'), truth, boxes)
    with pytest.raises(ValueError, match='must be of'):
        CocoMetric(str(path), 'proposal')


def test_an_image_of_another_size_is_named(tmp_path, monkeypatch):
    truth, samples = scenes(np.random.default_rng(3), images=3, classes=2)
    path = tmp_path / 'truth.json'
    said = []
    monkeypatch.setattr(coco_metric, 'print_log', lambda text, **_: said.append(text))
    path.write_text(json.dumps(truth))
    evaluated(CocoMetric(str(path)), truth, samples)
    assert not any('not of the size' in text for text in said)
    truth['images'][1]['width'] += 5
    path.write_text(json.dumps(truth))
    evaluated(CocoMetric(str(path)), truth, samples)
    number = truth['images'][1]['id']
    words = f'1 of 3 images are not of the size that {path} states, such as {number}:'
    assert sum(words in text for text in said) == 1
