"""The quickstart in small: one epoch on a few images, through the same tools as in full."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

REPO = Path(__file__).parents[2]
FEW = [
    'train_dataloader.dataset.indices=128',
    'val_dataloader.dataset.indices=50',
    'test_dataloader.dataset.indices=50',
    'param_scheduler.warmup=0',
    'default_hooks.logger.interval=1',
]


def quickstart(folder, *options):
    """Run it as `make quickstart` does, in a folder of its own."""
    command = [sys.executable, str(REPO / 'tools' / 'quickstart.py'), *options]
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp('quickstart')
    return folder, quickstart(folder, '--epochs', '1', '--cfg-options', *FEW)


def test_ends_with_the_accuracy_and_where_everything_is(finished):
    folder, done = finished
    assert done.returncode == 0, done.stdout[-3000:]
    report = done.stdout[done.stdout.rindex('=== Done') :]
    metrics = json.loads((folder / 'work_dirs/quickstart/test/metrics.json').read_text())
    assert f'=== Done: {metrics["accuracy/top1"]:.1f} % of the test images' in report
    files = dict(re.findall(r'^(checkpoint|log|curves|annotated picture) +(\S+)$', report, re.M))
    assert len(files) == 4
    assert all((folder / path).is_file() for path in files.values())
    for name in ('curves', 'annotated picture'):
        assert min(Image.open(folder / files[name]).size) > 100
    assert 'Epoch(train) [1][2/2]' in (folder / files['log']).read_text()


def test_progress_with_time_left_is_on_the_screen(finished):
    _, done = finished
    assert re.search(r'Epoch\(train\) +\[1\]\[1/2\].* eta: \d', done.stdout)


def test_prediction_is_of_a_digit(finished):
    folder, _ = finished
    content = (folder / 'work_dirs/quickstart/infer/predictions.json').read_text()
    (prediction,) = json.loads(content)['predictions']
    assert prediction['pred_class'] in [str(digit) for digit in range(10)]
    assert '/val/7/' in prediction['img_path']


def test_second_time_does_nothing_again(finished):
    folder, first = finished
    files = [path for path in (folder / 'work_dirs').rglob('*') if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    again = quickstart(folder, '--epochs', '1', '--cfg-options', *FEW)
    assert again.returncode == 0, again.stdout
    assert again.stdout.count('done already') == 5
    reports = [done.stdout[done.stdout.rindex('=== Done') :] for done in (first, again)]
    assert reports[0] == reports[1]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_fresh_never_deletes_a_folder_of_the_user(tmp_path):
    precious = tmp_path / 'mine' / 'thesis.txt'
    precious.parent.mkdir()
    precious.write_text('years of work')
    done = quickstart(tmp_path, '--fresh', '--work-dir', 'mine')
    assert done.returncode == 1
    assert 'mine was not made by the quickstart' in done.stdout
    assert precious.read_text() == 'years of work'


def test_failing_step_stops_with_its_name(tmp_path):
    (tmp_path / 'data' / 'digits').mkdir(parents=True)
    (tmp_path / 'data' / 'digits' / 'classification').write_text('in the way')
    done = quickstart(tmp_path)
    assert done.returncode == 1
    assert 'tools/dataset_converters/digits.py failed' in done.stdout
    assert 'tools/train.py' not in done.stdout
