"""What an annotation file lacks is found when a run begins, not when it has been predicted."""

import json

import numpy as np
import pytest
from random_scenes import scenes

from evamm.datasets.checks import DataError
from evamm.datasets.detection import bad_data
from evamm.evaluation.detection import CocoMetric, LVISMetric

BOTH = ['bbox', 'segm']


@pytest.fixture
def said(monkeypatch):
    """What is reported of annotations that are left out."""
    texts = []
    monkeypatch.setattr(bad_data, 'print_log', lambda text, **_: texts.append(text))
    return texts


@pytest.fixture
def case(tmp_path):
    """An annotation file, where to write it, samples, and what the data set says of itself."""
    truth, samples = scenes(np.random.default_rng(9), images=12, classes=3, lvis=True)
    path = tmp_path / 'truth.json'
    meta = {'classes': [entry['name'] for entry in truth['categories']]}

    def begin(kind=CocoMetric, metric=BOTH, **options):
        path.write_text(json.dumps(truth))
        metric = kind(str(path), metric, **options)
        metric.dataset_meta = meta
        path.unlink()  # it is read once
        return metric

    def evaluate(metric):
        metric.process(None, samples)
        return metric.evaluate(len(samples))

    return truth, begin, evaluate


# What is left out, and what is done to an annotation.
PROBLEMS = {
    'annotations without a box': lambda row: row.pop('bbox'),
    'boxes that are not four numbers': lambda row: row.update(bbox=[str(v) for v in row['bbox']]),
    'boxes without area': lambda row: row.update(bbox=[5, 5, float('nan'), 9]),
    'annotations without a mask': lambda row: row.update(segmentation=None),
    'masks of another size': lambda row: row['segmentation'].update(size=[120, 161]),
    'annotations whose iscrowd is neither 0 nor 1': lambda row: row.update(iscrowd='0'),
    'annotations whose area is no number': lambda row: row.update(area='12'),
    'annotations whose area is no number (': lambda row: row.update(area=float('nan')),
    'annotations of an image that is not listed': lambda row: row.pop('image_id'),
    'annotations of a category that is not listed': lambda row: row.update(category_id=77),
}


@pytest.mark.parametrize('kind', [CocoMetric, LVISMetric])
@pytest.mark.parametrize('problem', PROBLEMS)
def test_what_cannot_be_evaluated_is_left_out_at_the_start(case, said, kind, problem):
    truth, begin, evaluate = case
    bad = truth['annotations'][4]
    number = bad['id']
    whole = evaluate(begin(kind))
    rows = list(truth['annotations'])
    truth['annotations'].remove(bad)
    expected = evaluate(begin(kind))
    assert expected != whole and not said
    PROBLEMS[problem](bad)
    truth['annotations'] = rows
    metric = begin(kind)
    (text,) = said
    assert text.startswith(f'{kind.__name__}: ')
    assert f'truth.json: 1 of {len(rows)} annotations cannot be used: 1 {problem}' in text
    assert f'annotation {number} of image' in text and text.endswith('They are left out.')
    assert evaluate(metric) == evaluate(metric) == expected
    with pytest.raises(DataError, match='Correct the file, or set bad_data="skip" of the evalua'):
        begin(kind, bad_data='stop')


def test_too_much_is_refused_at_the_start(case):
    truth, begin, evaluate = case
    for row in truth['annotations'][:2]:
        row['bbox'] = None
    words = '2 annotations without a box.*more than max_bad=0.01 .* by max_bad of the evaluator'
    with pytest.raises(DataError, match=words):
        begin()
    assert evaluate(begin(max_bad=0.5))
    with pytest.raises(ValueError, match='`bad_data` must be one of'):
        begin(bad_data='ignore')


def test_null_means_not_stated(case, said):
    """No crowd; the area of the box."""
    truth, begin, evaluate = case
    row = truth['annotations'][4]
    width, height = row['bbox'][2:]
    row.update(area=width * height, iscrowd=0)
    for kind in (CocoMetric, LVISMetric):
        expected = evaluate(begin(kind, bad_data='stop'))
        row.update(area=None, iscrowd=None)
        assert evaluate(begin(kind, bad_data='stop')) == expected
        row.update(area=width * height, iscrowd=0)


def test_a_flag_to_ignore_changes_nothing(case):
    """As in pycocotools, where `iscrowd` takes its place; training leaves these out."""
    truth, begin, evaluate = case
    expected = evaluate(begin())
    truth['annotations'][4]['ignore'] = 1
    assert evaluate(begin(bad_data='stop')) == expected


def test_what_is_no_polygon_beside_polygons_is_left_out(case):
    """As it is where masks are loaded."""
    truth, begin, evaluate = case
    for row in truth['annotations']:
        x, y, width, height = row['bbox']
        row['segmentation'] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    expected = evaluate(begin())
    truth['annotations'][4]['segmentation'][:0] = [[1, 2, 90, 95], [1, 2, None, 4, 5, 6]]
    assert evaluate(begin(bad_data='stop')) == expected


def test_boxes_are_evaluated_without_masks(case):
    truth, begin, evaluate = case
    expected = evaluate(begin(metric='bbox'))
    for row in truth['annotations']:
        del row['segmentation']
    assert evaluate(begin(metric='bbox', bad_data='stop')) == expected
    with pytest.raises(DataError, match="no annotation has a segmentation.*take 'segm' out of"):
        begin()
    # Where nothing is compared, annotations do not matter.
    assert begin(format_only=True, bad_data='stop', outfile_prefix='found')


def test_lists_and_frequencies_of_lvis_are_looked_at_first(case):
    truth, begin, evaluate = case
    image = truth['images'][3]
    known = image.pop('neg_category_ids')
    expected = evaluate(begin(LVISMetric))
    image['neg_category_ids'] = None
    assert evaluate(begin(LVISMetric)) == expected
    image['neg_category_ids'] = 4
    with pytest.raises(DataError, match='neg_category_ids of image .* is 4; write a list'):
        begin(LVISMetric)
    image['neg_category_ids'] = known
    del truth['categories'][1]['frequency']
    with pytest.raises(DataError, match=r"category 'class 4' has no frequency \(.*CocoMetric"):
        begin(LVISMetric)
