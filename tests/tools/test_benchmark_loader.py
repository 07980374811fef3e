"""tools/analysis_tools/benchmark_loader.py, run as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'benchmark_loader.py'
DIGITS = ROOT / 'configs' / 'digits' / 'eva02_tiny_digits.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """Two classes of eight pictures, in the layout of the digits."""
    root = tmp_path_factory.mktemp('data')
    pixels = np.random.RandomState(0)
    for split in ('train', 'val'):
        for name in '01':
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                picture = pixels.randint(0, 256, (28, 28)).astype(np.uint8)
                Image.fromarray(picture).save(folder / f'{i}.png')
    return root


def run(data: Path, *arguments: str, split: str = 'train') -> subprocess.CompletedProcess:
    prefix = f'{split}_dataloader'
    options = [f'{prefix}.dataset.data_root={data}', f'{prefix}.dataset.metainfo.classes=["0","1"]']
    return subprocess.run(
        [sys.executable, TOOL, DIGITS, *arguments, '--split', split, '--cfg-options', *options],
        capture_output=True,
        text=True,
        env={'PATH': '', 'OMP_NUM_THREADS': '1', 'HOME': str(data)},
        cwd=ROOT,
    )


def test_times_every_transform_and_the_loader(data: Path):
    done = run(data, '--workers', '2', '--batch-size', '4', '--batches', '6', '--step-ms', '50')
    assert done.returncode == 0, done.stderr
    assert 'train: 16 samples, 4 batches of 4, 2 workers' in done.stdout
    table = dict(re.findall(r'^(\w+) +[\d.]+ +([\d.]+)%$', done.stdout, re.MULTILINE))
    assert list(table) == ['LoadImageFromFile', 'Rotate', 'RandomResizedCrop', 'PackInputs']
    assert sum(map(float, table.values())) == pytest.approx(100, abs=0.3)
    # Six batches of four at 50 ms each: not more than 80 images in a second.
    rate = float(re.search(r'images per second +([\d.]+)', done.stdout)[1])
    assert 5 < rate < 80
    share = float(re.search(r'data wait at 50 ms per step +([\d.]+) %', done.stdout)[1])
    assert 0 <= share < 90


def test_missing_data_and_split_are_said_in_a_sentence(data: Path):
    done = run(data / 'none')
    assert done.returncode == 1 and done.stderr.count('\n') <= 2
    assert 'the data of train_dataloader cannot be read' in done.stderr
    done = subprocess.run(
        [sys.executable, TOOL, DIGITS, '--cfg-options', 'val_dataloader=None', '--split', 'val'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and 'no val_dataloader; choose another --split' in done.stderr
