"""A run on shards that is stopped anywhere ends with the bits of one that was not."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from evamm.engine import EVARunner

from . import toy_run

REPO = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_global_state():
    yield
    for manager in (MessageHub, MMLogger, Visualizer, DefaultScope):
        manager._instance_dict.clear()


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def assert_same_end(whole, resumed, last):
    one, two = (torch.load(folder / last, weights_only=True) for folder in (whole, resumed))
    for part in ('state_dict', 'optimizer', 'rng', 'train_loop'):
        assert same(one[part], two[part]), part
    return one


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('workers', [0, 2])
def test_one_process(shards, tmp_path, workers, by_epoch):
    settings = dict(shards=shards, cache_dir=tmp_path / 'cache', by_epoch=by_epoch)
    cfg = toy_run.config(tmp_path / 'run', workers=workers, **settings)
    whole, resumed = toy_run.whole_and_resumed(cfg, stops=[3, 10, 24])
    end = assert_same_end(whole, resumed, 'iter_30.pth')
    # The number of workers changes nothing either.
    if workers:
        toy_run.train(toy_run.config(tmp_path / 'plain', **settings))
        plain = torch.load(tmp_path / 'plain' / 'iter_30.pth', weights_only=True)
        assert same(plain['state_dict'], end['state_dict'])
    # Another seed is another run.
    other = toy_run.config(tmp_path / 'other', **settings)
    toy_run.train({**other, 'randomness': dict(seed=4)})
    other = torch.load(tmp_path / 'other' / 'iter_30.pth', weights_only=True)
    assert not same(other['state_dict'], end['state_dict'])


def test_another_mixture_is_named_when_a_run_goes_on(shards, tmp_path):
    cfg = toy_run.config(tmp_path / 'run', shards, tmp_path / 'cache', by_epoch=False, mixture=True)
    cfg['train_cfg']['max_iters'] = 2
    toy_run.train(cfg)
    for weights, words in (([3, 1], None), ([1, 3], 'weights [3.0, 1.0] then, [1.0, 3.0] now')):
        cfg['train_dataloader']['dataset']['weights'] = weights
        cfg['train_cfg']['max_iters'] += 1
        runner = EVARunner.from_cfg({**cfg, 'resume': True, 'experiment_name': str(weights)})
        warnings = []
        runner.logger.warning = warnings.append
        runner.train()
        found = [text for text in warnings if 'not that of the resumed run' in text]
        assert len(found) == (words is not None)
        assert not words or f'({words})' in found[0]


def test_a_finished_run_leaves_no_worker_behind(shards, tmp_path):
    """It ends inside a pass; its workers would delay the end of the program."""
    before = set(multiprocessing.active_children())
    cfg = toy_run.config(tmp_path / 'run', shards, tmp_path / 'cache', workers=1, by_epoch=False)
    cfg['train_cfg']['max_iters'] = 3
    runner = EVARunner.from_cfg({**cfg, 'experiment_name': str(tmp_path)})
    runner.train()
    assert not set(multiprocessing.active_children()) - before


def start_two(*command):
    """As torchrun does, without its agent."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        'PYTHONPATH': str(REPO),
        'OMP_NUM_THREADS': '1',
        'WORLD_SIZE': '2',
        'MASTER_ADDR': 'localhost',
        'MASTER_PORT': str(port),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            env={**env, 'RANK': rank, 'LOCAL_RANK': rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in '01'
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output


def test_two_processes_with_a_mixture(shards, tmp_path):
    """Two workers each."""
    settings = dict(work_dir=str(tmp_path / 'run'), shards=str(shards), workers=2, mixture=True)
    settings['cache_dir'] = str(tmp_path / 'cache')
    start_two(Path(toy_run.__file__), json.dumps(settings))
    assert_same_end(tmp_path / 'run_whole', tmp_path / 'run', 'iter_15.pth')
