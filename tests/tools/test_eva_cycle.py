"""The cycle in small: a few steps of everything, through the same tools as in full."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from evamm.datasets.digits import write_captions, write_scene_classes
from evamm.models.teachers import CLIPTeacher

REPO = Path(__file__).parents[2]
WORK = Path('work_dirs/eva_cycle')


def cycle(folder: Path, *options: str) -> str:
    """Run it as `make cycle` does, in a folder of its own; returns its output."""
    done = subprocess.run(
        [sys.executable, str(REPO / 'tools' / 'eva_cycle.py'), '--tiny', '--seeds', '1', *options],
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cycle')
    write_captions(folder / 'data/digits', shards=1, per_shard=60)
    write_scene_classes(folder / 'data/digits', scenes_per_digit=1)
    return folder, cycle(folder)


def test_the_table_has_every_row(finished):
    folder, output = finished
    table = (folder / WORK / 'table.md').read_text()
    assert table.strip() in output
    results = json.loads((folder / WORK / 'results.json').read_text())
    for name in ('100 labels', '1000 labels', 'second CLIP, zero-shot'):
        row = next(line for line in table.splitlines() if line.startswith(f'| {name} |'))
        for start in ('scratch', 'mim'):
            (value,) = results['top1'][name][start]
            assert 0 <= value <= 100 and f'| {value:.1f} ± 0.0 ({value:.1f}) |' in row
    assert set(results['seconds']) == {
        path.parent.name for path in folder.glob(f'{WORK}/*/done.json')
    }
    assert len(results['seconds']) == 12


def test_losses_from_the_cache_are_those_with_the_teacher(finished):
    folder, _ = finished
    results = json.loads((folder / WORK / 'results.json').read_text())
    assert results['compared_steps'] == 8
    assert results['last_loss'] < results['first_loss'] - 0.05
    assert results['largest_difference'] < 1e-3


def test_every_step_starts_from_the_one_before(finished):
    folder, _ = finished
    clip, mim = f'{WORK}/clip/iter_8.pth', f'{WORK}/mim_0/iter_8.pth'
    assert f'CLIPTeacher from {clip}' in (folder / WORK / 'live/output.txt').read_text()
    assert 'CLIPTeacher from' not in (folder / WORK / 'cached/output.txt').read_text()
    for name in ('labels_100', 'labels_1000', 'second_clip'):
        assert f'from {mim}' in (folder / WORK / f'{name}_mim_0/output.txt').read_text()
        assert mim not in (folder / WORK / f'{name}_scratch_0/output.txt').read_text()


def test_the_cache_is_that_of_the_trained_tower(finished, tool):
    folder, _ = finished
    settings = Config.fromfile(REPO / 'configs/digits/eva02_mim_tiny_digits.py').model.teacher
    settings.pop('type')
    settings.init_cfg.checkpoint = str(folder / WORK / 'clip/iter_8.pth')
    teacher = CLIPTeacher(**settings)
    teacher.load()
    meta = json.loads((folder / WORK / 'features/meta.json').read_text())
    assert meta['teacher_sha256'] == tool('cache_teacher').hash_weights(teacher)
    assert meta['images'] == 50 and meta['num_views'] == 2


def test_only_what_is_missing_is_done_again(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.glob(f'{WORK}/*/done.json')}
    missing = folder / WORK / 'labels_100_mim_0/done.json'
    table = (folder / WORK / 'table.md').read_text()
    missing.unlink()
    output = cycle(folder)
    assert output.count('done already') == 12
    assert len(re.findall(r'^\$ python', output, re.MULTILINE)) == 1
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed == {missing}
    assert (folder / WORK / 'table.md').read_text() == table


def test_a_folder_of_the_user_is_never_touched(tool, tmp_path):
    module = tool('eva_cycle')
    (tmp_path / 'thesis.txt').write_text('years of work')
    for fresh in (False, True):
        with pytest.raises(module.StepFailedError, match='was not made by this tool'):
            module.prepare(tmp_path, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']
