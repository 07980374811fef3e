"""The transforms of detection against the official code, whose results are golden numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from jitter_cases import CASES, annotations, picture
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from PIL import Image
from pycocotools import mask as mask_util

from evamm.datasets.detection import (
    LargeScaleJitter,
    LoadDetAnnotations,
    RandomDetFlip,
    ResizeLongestEdge,
)
from evamm.datasets.detection.loading import ImageSizeError
from evamm.datasets.detection.polygons import clip_polygons
from evamm.datasets.detection.resize import longest_edge_size
from evamm.datasets.transforms import LoadImageFromFile

GOLDEN = Path(__file__).parents[2] / 'data' / 'golden' / 'detection_jitter.json'


def entry(size, rows):
    """What a data set gives for an image and annotations in COCO's format."""
    instances = [
        {
            'bbox': [*row['bbox'][:2], *np.add(row['bbox'][:2], row['bbox'][2:]).tolist()],
            'bbox_label': row['category_id'],
            'ignore_flag': row['iscrowd'],
            'mask': row['segmentation'],
        }
        for row in rows
    ]
    return {'height': size[0], 'width': size[1], 'instances': instances}


def area(polygons):
    """Area of an instance whose polygons do not overlap."""
    total = 0.0
    for polygon in polygons:
        x, y = polygon.reshape(-1, 2).T
        total += abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
    return total


def jittered(case, seed, backend):
    size, side, scale_range, masks = CASES[case]
    results = {**entry(size, annotations(*size, seed)), 'ori_shape': size}
    results['img'] = picture(*size)[..., ::-1].copy()
    results = LoadDetAnnotations(with_mask=masks)(results)
    np.random.seed(seed)
    steps = [
        RandomDetFlip(),
        LargeScaleJitter(side, scale_range, recompute_boxes=masks, backend=backend),
    ]
    for step in steps:
        results = step(results)
    return results


@pytest.mark.parametrize('backend', ['pillow', 'torch'])
def test_jitter_is_the_official_one_number_by_number(backend):
    """Flip, size, crop, pixels, boxes, labels and masks of the same random numbers."""
    golden = json.loads(GOLDEN.read_text())['jitter']
    assert len(golden) == 4 * len(CASES)
    flips = set()
    for expected in golden:
        results = jittered(expected['case'], expected['seed'], backend)
        flips.add(results['flip'])
        assert list(results['img'].shape[:2]) == expected['shape'] == list(results['img_shape'])
        pixels = results['img'][::9, ::11, ::-1].astype(int)
        # Pillow's own filter may round a value differently from version to version.
        assert np.abs(pixels - np.array(expected['pixels'])).max() <= (1, 2)[backend == 'torch']
        boxes = results['gt_bboxes'].tensor.numpy()
        np.testing.assert_allclose(boxes, np.reshape(expected['boxes'], (-1, 4)), atol=2e-4, rtol=0)
        assert results['gt_bboxes_labels'].tolist() == expected['labels']
        if expected['areas'] is not None:
            found = [area(polygons) for polygons in results['gt_masks'].masks]
            np.testing.assert_allclose(found, expected['areas'], atol=2e-3)
            assert results['gt_masks'].height == expected['shape'][0]
    assert flips == {True, False}


def test_bitmaps_are_cut_like_the_image():
    """Without a change of scale a mask keeps the pixels under it."""
    bitmap = np.zeros((1, 40, 60), np.uint8)
    bitmap[0, 25:38, 5:55] = 1
    results = {
        'img': np.repeat(bitmap[0, ..., None], 3, 2) * 200,
        'gt_bboxes': HorizontalBoxes(torch.tensor([[0.0, 0, 60, 40]])),
        'gt_bboxes_labels': np.array([7]),
        'gt_masks': BitmapMasks(bitmap, 40, 60),
    }
    # 60 x 40 fills 60 x 60 at scale 1; a window of 30 x 60 is cut from the middle of 40 rows.
    jitter = LargeScaleJitter((30, 60), (4 / 3, 4 / 3), backend='pillow')
    results = jitter(results)
    assert results['img'].shape == (30, 60, 3)
    mask = results['gt_masks'].masks[0]
    assert (mask == (results['img'][..., 0] > 100)).all()
    rows, columns = np.nonzero(mask)
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert results['gt_bboxes'].tensor.tolist() == [box]


def test_instances_outside_of_the_crop_are_gone_and_an_image_may_have_none():
    polygon = np.array([1.0, 1, 4, 1, 4, 4])
    results = {
        'img': np.zeros((100, 100, 3), np.uint8),
        'gt_bboxes': HorizontalBoxes(torch.tensor([[1.0, 1, 4, 4]])),
        'gt_bboxes_labels': np.array([3]),
        'gt_ignore_flags': np.array([False]),
        'gt_masks': PolygonMasks([[polygon]], 100, 100),
    }
    np.random.seed(1)  # the corner is cut off
    results = LargeScaleJitter(20, (9.0, 9.0))(results)
    assert results['img'].shape == (20, 20, 3)
    for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks'):
        assert len(results[key]) == 0, key


def test_an_instance_needs_a_rest_of_its_mask_even_if_boxes_are_cut():
    """A triangle in one corner of its box; the crop takes the opposite one."""
    results = {
        'img': np.zeros((100, 100, 3), np.uint8),
        'gt_bboxes': HorizontalBoxes(torch.tensor([[0.0, 0, 100, 100]])),
        'gt_bboxes_labels': np.array([3]),
        'gt_masks': PolygonMasks([[np.array([0.0, 0, 40, 0, 0, 40])]], 100, 100),
    }
    np.random.seed(1)
    for recompute, masks in ((False, True), (False, False)):
        given = {key: value for key, value in results.items() if masks or key != 'gt_masks'}
        found = LargeScaleJitter(20, (9.0, 9.0), recompute_boxes=recompute)(given)
        assert len(found['gt_bboxes']) == (not masks)


def test_polygons_that_only_touch_a_window_are_gone():
    square = np.array([0.0, 0, 10, 0, 10, 10, 0, 10])
    touching = [[square], [square + np.tile([10, 0], 4)], [square + np.tile([5, 5], 4)], []]
    clipped = clip_polygons(touching, 10, 0, 30, 10)
    assert [len(polygons) for polygons in clipped] == [0, 1, 1, 0]
    assert area(clipped[2]) == 25


def test_flipping_twice_changes_nothing():
    results = {**entry((40, 60), annotations(40, 60, 0)), 'ori_shape': (40, 60)}
    results['img'] = picture(40, 60)
    results = LoadDetAnnotations(with_mask=True)(results)
    image, boxes = results['img'], results['gt_bboxes'].tensor.clone()
    first = results['gt_masks'].masks[0][0].copy()
    once = RandomDetFlip(prob=1.0)(results)
    assert (once['img'] == image[:, ::-1]).all() and once['img'].flags.c_contiguous
    assert not torch.equal(once['gt_bboxes'].tensor, boxes)
    twice = RandomDetFlip(prob=1.0)(once)
    assert torch.allclose(twice['gt_bboxes'].tensor, boxes, atol=1e-5)
    np.testing.assert_allclose(twice['gt_masks'].masks[0][0], first)
    assert twice['flip_direction'] == 'horizontal'
    assert RandomDetFlip(prob=0.0)(twice)['flip'] is False


@pytest.mark.parametrize(
    ('size', 'target', 'expected'),
    # Computed by detectron2's ResizeShortestEdge.get_output_shape(h, w, S, S).
    [
        ((480, 640), 1024, (768, 1024)),
        ((427, 640), 1536, (1025, 1536)),
        ((640, 425), 1024, (1024, 680)),
        ((333, 500), 1280, (852, 1280)),
        ((1, 900), 64, (1, 64)),
    ],
)
def test_the_longest_edge_is_resized_as_officially(size, target, expected):
    assert longest_edge_size(*size, target) == expected
    if min(size) > 1:
        results = ResizeLongestEdge(target, backend='pillow')({'img': picture(*size)})
        reference = Image.fromarray(picture(*size)).resize(expected[::-1], Image.BILINEAR)
        assert (results['img'] == np.asarray(reference)).all()
        assert results['scale_factor'] == (expected[1] / size[1], expected[0] / size[0])


def test_masks_stay_polygons_and_crowds_are_left_out():
    rows = annotations(40, 60, 0)
    results = LoadDetAnnotations(with_mask=True)({**entry((40, 60), rows), 'ori_shape': (40, 60)})
    assert isinstance(results['gt_masks'], PolygonMasks)
    assert len(results['gt_bboxes']) == len(results['gt_masks']) == len(rows) - 1
    kept = LoadDetAnnotations(with_crowd=True)({**entry((40, 60), rows), 'ori_shape': (40, 60)})
    assert kept['gt_ignore_flags'].tolist() == [False] * 6 + [True]
    assert 'gt_masks' not in kept


def test_one_mask_of_runs_makes_all_masks_bitmaps():
    rows = annotations(40, 60, 0)[:2]
    bitmap = np.zeros((40, 60), np.uint8)
    bitmap[3:9, 4:30] = 1
    encoded = mask_util.encode(np.asfortranarray(bitmap))
    rows[0]['segmentation'] = {'size': [40, 60], 'counts': encoded['counts'].decode()}
    results = LoadDetAnnotations(with_mask=True)({**entry((40, 60), rows), 'ori_shape': (40, 60)})
    assert isinstance(results['gt_masks'], BitmapMasks)
    assert (results['gt_masks'].masks[0] == bitmap).all()
    assert 0 < results['gt_masks'].masks[1].sum() < 40 * 60


def test_instances_without_a_mask_or_with_an_unusable_one():
    rows = annotations(40, 60, 0)[:2]
    rows[1]['segmentation'] = [[1, 1, 2, 2]]
    results = LoadDetAnnotations(with_mask=True)({**entry((40, 60), rows), 'ori_shape': (40, 60)})
    assert len(results['gt_bboxes']) == 1
    del rows[1]['segmentation']
    rows[1]['segmentation'] = None
    with pytest.raises(ValueError, match='no mask.*with_mask=True'):
        LoadDetAnnotations(with_mask=True)({**entry((40, 60), rows), 'ori_shape': (40, 60)})


def test_an_image_of_another_size_than_stated_is_named():
    info = {**entry((40, 60), annotations(40, 60, 0)), 'img_path': 'a/b.jpg'}
    with pytest.raises(ImageSizeError, match=r'a/b.jpg is 40 x 60 pixels.*for 60 x 40'):
        LoadDetAnnotations()({**info, 'ori_shape': (60, 40)})


@pytest.mark.parametrize('orientation', range(1, 9))
def test_a_photograph_is_turned_upright(tmp_path, orientation):
    """As Pillow turns it, and only if asked to."""
    from PIL import ImageOps

    image = Image.fromarray(picture(24, 40))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / 'a.jpg', quality=95, exif=exif)
    with Image.open(tmp_path / 'a.jpg') as file:
        stored, upright = np.asarray(file), np.asarray(ImageOps.exif_transpose(file))
    for asked, expected in ((False, stored), (True, upright)):
        results = LoadImageFromFile(orientation=asked)({'img_path': str(tmp_path / 'a.jpg')})
        assert results['img_shape'] == expected.shape[:2]
        assert np.abs(results['img'][..., ::-1].astype(int) - expected).max() <= 1
        assert results['img'].flags.c_contiguous


@pytest.mark.parametrize(
    'build',
    [
        lambda: LargeScaleJitter(64, (2.0, 0.1)),
        lambda: LargeScaleJitter(64, backend='opencv'),
        lambda: ResizeLongestEdge(64, backend='opencv'),
        lambda: RandomDetFlip(prob=1.5),
    ],
)
def test_senseless_arguments_are_refused(build):
    with pytest.raises(ValueError, match='must be'):
        build()
