"""Scenes of one digit with labels: fair lists of few labels, nothing of the test in training."""

import functools
import hashlib
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from evamm.datasets.digits import load_digits, scene_classes, stratified_split, write_scene_classes
from evamm.datasets.digits.scenes import SCENE_SIZE, WORDS

source = functools.cache(load_digits)


@pytest.fixture(autouse=True, scope='module')
def read_source_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_classes, 'load_digits', source)
        yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits')
    assert write_scene_classes(root)
    assert not write_scene_classes(root)
    return root / 'scene_classes'


def read(folder: Path, name: str) -> list[tuple[str, int]]:
    lines = (folder / 'meta' / f'{name}.txt').read_text().splitlines()
    return [(path, int(label)) for path, label in (line.split() for line in lines)]


def numbers(listed: list[tuple[str, int]]) -> list[int]:
    return [int(Path(path).stem.split('_')[0]) for path, _ in listed]


@pytest.mark.parametrize(('part', 'per_class'), [('train', 800), ('val', 100)])
def test_meta_lists_the_files_and_labels_are_those_of_the_digits(folder, part, per_class):
    _, labels = source()
    listed = read(folder, part)
    on_disk = {str(path.relative_to(folder / part)) for path in (folder / part).rglob('*.png')}
    assert {path for path, _ in listed} == on_disk and len(on_disk) == len(listed)
    assert np.bincount([label for _, label in listed]).tolist() == [per_class] * 10
    assert all(path.split('/')[0] == WORDS[label] for path, label in listed)
    assert [label for _, label in listed] == labels[numbers(listed)].tolist()
    image = Image.open(folder / part / listed[0][0])
    assert image.size == (SCENE_SIZE, SCENE_SIZE) and image.mode == 'RGB'


def test_no_digit_of_the_test_is_in_training_of_any_task(folder):
    _, labels = source()
    train, val = stratified_split(labels, scene_classes.VAL_FRACTION, seed=0)
    assert sorted(set(numbers(read(folder, 'train')))) == sorted(train)
    assert sorted(numbers(read(folder, 'val'))) == sorted(val)


def test_lists_of_few_labels_are_fair_nested_and_different(folder):
    every = set(read(folder, 'train'))
    for index in range(3):
        few, many = (read(folder, f'train_{count}_{index}') for count in (100, 1000))
        for listed, count in ((few, 100), (many, 1000)):
            assert np.bincount([label for _, label in listed]).tolist() == [count // 10] * 10
            assert len(set(numbers(listed))) == count and set(listed) <= every
        assert set(few) <= set(many)
    lists = [frozenset(read(folder, f'train_100_{index}')) for index in range(3)]
    assert all(len(one & other) < 30 for one in lists for other in lists if one is not other)


def test_two_scenes_of_a_digit_differ(folder):
    path, _ = read(folder, 'train')[0]
    pictures = [Image.open(folder / 'train' / path.replace('_0', f'_{i}')) for i in range(2)]
    assert not np.array_equal(*map(np.asarray, pictures))


def few(labels: np.ndarray, val_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(part[:40] for part in stratified_split(labels, val_fraction, seed))


def test_it_is_a_function_of_the_seed(tmp_path, monkeypatch):
    def digest(root: Path) -> str:
        total = hashlib.sha256()
        for path in sorted(root.rglob('*')):
            total.update(str(path.relative_to(root)).encode())
            if path.is_file():
                total.update(path.read_bytes())
        return total.hexdigest()

    digests = set()
    monkeypatch.setattr(scene_classes, 'stratified_split', few)
    for name, seed in (('a', 0), ('b', 0), ('c', 1)):
        write_scene_classes(tmp_path / name, seed, scenes_per_digit=1)
        digests.add(digest(tmp_path / name / 'scene_classes'))
    assert len(digests) == 2


def test_mmpretrain_reads_a_list_of_few_labels(folder):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(
            dict(
                type='ImageNet',
                data_root=str(folder),
                split='train',
                ann_file='meta/train_100_1.txt',
                metainfo=dict(classes=WORDS),
            )
        )
    assert len(dataset) == 100
    info = dataset.get_data_info(57)
    assert (
        Path(info['img_path']).is_file() and info['gt_label'] == read(folder, 'train_100_1')[57][1]
    )
