"""Scenes for detection: valid COCO files, exact masks, and nothing of the test in training."""

import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from evamm.datasets.digits import detection, load_digits, stratified_split, write_detection
from evamm.datasets.digits.detection import _Placed, compose, paint_scene, run_lengths
from evamm.datasets.digits.scenes import WORDS
from evamm.registry import DATASETS

source = functools.cache(load_digits)
SCENES = dict(train_scenes=60, val_scenes=51, test_scenes=52)
PARTS = ('train', 'val', 'test')


@pytest.fixture(autouse=True, scope='module')
def read_source_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, 'load_digits', source)
        yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits')
    assert write_detection(root, **SCENES)
    assert not write_detection(root, **SCENES)
    return root / 'detection'


def read(folder: Path, part: str) -> dict:
    return json.loads((folder / 'annotations' / f'instances_{part}.json').read_text())


def picture(folder: Path, part: str, image: dict) -> np.ndarray:
    return np.asarray(Image.open(folder / part / image['file_name'])).astype(float)


@pytest.mark.parametrize('part', PARTS)
def test_the_file_is_what_pycocotools_reads_in_it(folder, part, capsys):
    coco = COCO(folder / 'annotations' / f'instances_{part}.json')
    assert len(coco.imgs) == SCENES[f'{part}_scenes']
    assert [entry['name'] for entry in coco.loadCats(range(1, 11))] == list(WORDS)
    assert len({ann['id'] for ann in coco.dataset['annotations']}) == len(coco.anns)
    for ann in coco.anns.values():
        image = coco.imgs[ann['image_id']]
        mask = coco.annToMask(ann)
        assert mask.shape == (image['height'], image['width'])
        assert ann['area'] == mask.sum() and ann['iscrowd'] == 0
        assert ann['bbox'] == coco_mask.toBbox(coco.annToRLE(ann)).tolist()
    on_disk = {path.name for path in (folder / part).iterdir()}
    assert {image['file_name'] for image in coco.imgs.values()} == on_disk
    for image in coco.imgs.values():
        assert picture(folder, part, image).shape == (image['height'], image['width'], 3)


@pytest.mark.parametrize('part', PARTS)
def test_a_pixel_has_one_owner_and_one_scene_in_fifty_is_empty(folder, part, capsys):
    coco = COCO(folder / 'annotations' / f'instances_{part}.json')
    counts = []
    for number in coco.imgs:
        anns = coco.loadAnns(coco.getAnnIds(number))
        counts.append(len(anns))
        if anns:
            assert sum(coco.annToMask(ann).astype(int) for ann in anns).max() == 1
    assert counts[49] == 0 and counts.count(0) == 1 and max(counts) == detection.MAX_DIGITS
    flat = picture(folder, part, coco.imgs[50])
    assert (flat == flat[0, 0]).all()


def test_a_mask_is_what_is_at_least_half_covered(folder, capsys):
    coco = COCO(folder / 'annotations' / 'instances_train.json')
    checked = 0
    for number, image in coco.imgs.items():
        anns = coco.loadAnns(coco.getAnnIds(number))
        if len(anns) != 1:
            continue
        pixels = picture(folder, 'train', image)
        ground = np.median(pixels.reshape(-1, 3), axis=0)
        away = np.abs(pixels - ground).sum(axis=2)
        # The shade of full ink, as bicubic resizing overshoots.
        ink = np.percentile(away[coco.annToMask(anns[0]) == 1], 80)
        sure = np.abs(away - ink / 2) > 0.1 * ink
        assert ((away > ink / 2) == coco.annToMask(anns[0]))[sure].all()
        checked += 1
    assert checked > 5


def square(row: int, column: int, colour: str, digit: int = 0, side: int = 20) -> _Placed:
    return _Placed(digit, row, column, np.ones((side, side)), colour)


def test_later_digits_lie_over_earlier_ones():
    placed = [square(10, 10, 'red'), square(20, 20, 'blue', 7)]
    below, above = detection._annotations(placed, image_id=3, first_id=11)
    assert (below['id'], above['id'], above['category_id'], above['image_id']) == (11, 12, 8, 3)
    assert (below['area'], above['area']) == (300, 400)
    assert below['bbox'] == [10, 10, 20, 20] and above['bbox'] == [20, 20, 20, 20]
    pixels = paint_scene(placed, np.random.default_rng(0)).astype(int)
    red, blue = pixels[15, 15], pixels[25, 25]
    assert red[0] > 150 > red[2] and blue[2] > 150 > blue[0]
    assert detection._shared(*placed) == 0.25
    covered = square(10, 10, 'red'), square(10, 10, 'blue')
    assert detection._least_visible(list(covered)) == 0


def test_scenes_overlap_repeat_and_hide_little():
    images, labels = source()
    numbers = np.arange(0, 5000, 5)
    rng = np.random.default_rng(0)
    scenes = [compose(images, labels, numbers, rng) for _ in range(150)]
    assert all(detection._least_visible(placed) >= detection._VISIBLE for placed in scenes)
    assert {len(placed) for placed in scenes} == set(range(1, detection.MAX_DIGITS + 1))
    hidden = [
        np.count_nonzero(digit.cover >= 0.5) > np.count_nonzero(detection._owners(placed) == index)
        for placed in scenes
        for index, digit in enumerate(placed)
    ]
    assert 0.1 < np.mean(hidden) < 0.5
    boxes_meet = [
        max((detection._shared(one, other) for other in placed if other is not one), default=0)
        for placed in scenes
        for one in placed
    ]
    assert np.mean(np.array(boxes_meet) > 0) > 0.3 and max(boxes_meet) <= detection._SHARED
    repeated = [len({digit.digit for digit in placed}) < len(placed) for placed in scenes]
    assert 0.3 < np.mean(repeated) < 0.7
    # Digits that touch have different colours while there are enough of them.
    for placed in scenes:
        for one in placed[:2]:
            for other in placed[:2]:
                if one is not other and detection._shared(one, other) > 0:
                    assert one.colour != other.colour


def test_only_the_given_digits_are_used():
    images, labels = source()
    numbers = np.flatnonzero(labels == 4)[:3]
    placed = compose(images, labels, numbers, np.random.default_rng(2))
    assert placed and {digit.digit for digit in placed} == {4}


def test_no_two_parts_share_a_digit(tmp_path, monkeypatch):
    used = []

    def spy(images, labels, numbers, rng):
        used.append(set(numbers.tolist()))
        return []

    monkeypatch.setattr(detection, 'compose', spy)
    write_detection(tmp_path, train_scenes=2, val_scenes=3, test_scenes=1)
    train, held_out = (set(part.tolist()) for part in stratified_split(source()[1], 0.2, seed=0))
    val, test = used[2], used[-1]
    assert used == [train] * 2 + [val] * 3 + [test]
    assert not val & test and val | test == held_out and len(val) == len(test)


def test_it_is_a_function_of_the_seed(tmp_path):
    digests = set()
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        write_detection(tmp_path / name, seed, train_scenes=3, val_scenes=3, test_scenes=3)
        total = hashlib.sha256()
        for path in sorted((tmp_path / name / 'detection').rglob('*.[pj][ns]*')):
            total.update(str(path.relative_to(tmp_path / name)).encode() + path.read_bytes())
        digests.add(total.hexdigest())
    assert len(digests) == 2


@pytest.mark.parametrize('fill', ['none', 'all', 'first', 'last', 'random'])
def test_run_lengths_are_those_of_coco(fill):
    mask = np.zeros((5, 7), bool)
    if fill == 'all':
        mask[:] = True
    elif fill == 'first':
        mask[0, 0] = True
    elif fill == 'last':
        mask[-1, -1] = True
    elif fill == 'random':
        mask = np.random.default_rng(0).random((5, 7)) < 0.5
    runs = run_lengths(mask)
    assert sum(runs['counts']) == mask.size and min(runs['counts'][1:], default=1) > 0
    rle = coco_mask.frPyObjects(runs, *runs['size'])
    assert rle['counts'] == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))['counts']


def test_the_data_set_reads_it_without_complaint(folder):
    dataset = DATASETS.build(
        dict(
            type='evamm.CocoDataset',
            data_root=str(folder),
            ann_file='annotations/instances_val.json',
            data_prefix=dict(img='val/'),
            metainfo=dict(classes=WORDS),
            bad_data='stop',
            test_mode=True,
            pipeline=[
                dict(type='evamm.LoadImageFromFile'),
                dict(type='evamm.LoadDetAnnotations', with_mask=True),
            ],
        )
    )
    coco = read(folder, 'val')
    assert len(dataset) == SCENES['val_scenes']
    number = next(index for index in range(len(dataset)) if len(dataset[index]['gt_masks'].masks))
    sample = dataset[number]
    anns = [ann for ann in coco['annotations'] if ann['image_id'] == number + 1]
    assert sample['gt_bboxes_labels'].tolist() == [ann['category_id'] - 1 for ann in anns]
    areas = [ann['area'] for ann in anns]
    assert sample['gt_masks'].masks.sum(axis=(1, 2)).tolist() == areas
