"""Two processes on the CPU (gloo) against one process with the joined batch."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name('distributed_pairs.py')
CHECKS = re.findall(r"^    '(\w+)',$", SCRIPT.read_text(), flags=re.MULTILINE)


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Result of every check in both processes, from one start."""
    root = tmp_path_factory.mktemp('pairs')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    command += ['--nproc_per_node=2', str(SCRIPT), str(root)]
    path = os.pathsep.join([str(SCRIPT.parents[3]), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        env={
            **os.environ,
            'CUDA_VISIBLE_DEVICES': '',
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': path,
        },
    )
    files = [root / f'results{rank}.json' for rank in (0, 1)]
    assert all(file.is_file() for file in files), done.stderr[-4000:]
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.parametrize('check', CHECKS)
def test_two_processes(results, check):
    for rank, result in enumerate(results):
        assert result[check] is None, f'process {rank}:\n{result[check]}'
