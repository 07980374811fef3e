"""Short versions of the commands in benchmarks/reliability."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.reliability import damage
from evamm.checkpoints import write_checkpoint

ROOT = Path(__file__).parents[2]


def test_a_run_that_is_killed_three_times_ends_like_an_undisturbed_one():
    process = subprocess.run(
        [
            sys.executable,
            '-m',
            'benchmarks.reliability.kill_storm',
            '--kills',
            '3',
            '--epochs',
            '6',
            '--seed',
            '1',
        ],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    report = dict(line.rsplit(maxsplit=1) for line in process.stdout.splitlines()[-9:])
    assert report['kills'].strip() == '3' and report['different ends'] == '0'
    assert int(report['most iterations lost']) <= 3


@pytest.mark.parametrize('kind', damage.DAMAGES)
def test_damage_is_found_or_harmless(tmp_path, kind):
    generator = torch.Generator().manual_seed(0)
    state = {str(i): torch.randn(200, generator=generator) for i in range(40)}
    path = tmp_path / 'iter_1.pth'
    write_checkpoint({'state_dict': state, 'meta': {'iter': 1}}, path)
    outcomes = damage.try_damages(path, damage.DAMAGES[kind], 60)
    assert outcomes['found'] + outcomes['harmless'] == 60
    assert outcomes['found'] > 50


def test_the_count_tells_harm_from_no_harm(tmp_path):
    """A reader that checks nothing would be seen."""
    path = tmp_path / 'iter_1.pth'
    torch.save({'x': torch.zeros(1000)}, path)
    other = tmp_path / 'other.pth'
    torch.save({'x': torch.ones(1000)}, other)
    outcomes = damage.try_damages(path, lambda data, rng: other.read_bytes(), 2)
    assert outcomes['harmful'] == 2
