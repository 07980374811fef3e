"""A run that was interrupted anywhere ends with the bits of one that was not."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exact_runs import Crash, assert_same_end, by_iteration, scramble
from mmengine.registry import DATASETS


@pytest.fixture
def cfg(toy_cfg):
    """Three epochs of six iterations (the third ends inside an accumulation window of four)."""
    toy_cfg['train_cfg'].update(max_epochs=3, val_interval=2)
    toy_cfg['param_scheduler']['end'] = 3
    toy_cfg['default_hooks']['checkpoint'].update(by_epoch=False, interval=1, max_keep_ckpts=2)
    return toy_cfg


def whole_and_resumed(
    cfg, make_runner, tmp_path, stops, where='train', last='iter_18.pth', **resumed
):
    """Run without a stop, then with stops after these iterations; the two last checkpoints."""
    make_runner(cfg, work_dir=str(tmp_path / 'whole')).train()
    hooks = cfg['custom_hooks']
    for stop in stops:
        cfg['custom_hooks'] = [*hooks, {'type': 'CrashHook', 'iteration': stop, 'where': where}]
        scramble()
        with pytest.raises(Crash):
            make_runner(cfg, resume=True).train()
    cfg['custom_hooks'] = hooks
    for key, value in resumed.items():
        cfg['train_dataloader'][key] = value
    scramble()
    make_runner(cfg, resume=True).train()
    return tmp_path / 'whole' / last, tmp_path / 'run' / last


EVERYWHERE = [1, 2, 6, 7, 11, 12, 17, 18]


@pytest.mark.parametrize('loop', ['epoch', 'iter', 'iter, infinite'])
def test_a_run_stopped_at_many_places_ends_with_the_same_bits(cfg, make_runner, tmp_path, loop):
    """After the first iteration, inside an epoch, at its edge, after it, at the very end."""
    if loop != 'epoch':
        by_iteration(cfg, 'InfiniteSampler' if 'infinite' in loop else 'DefaultSampler')
    cfg['optim_wrapper']['clip_grad'] = {'max_norm': 1.0}
    assert_same_end(*whole_and_resumed(cfg, make_runner, tmp_path, EVERYWHERE))


@pytest.mark.parametrize('loop', ['epoch', 'iter'])
@pytest.mark.parametrize('accumulation', [1, 4])
@pytest.mark.parametrize('scaler', [False, True])
@pytest.mark.parametrize('ema', [False, True])
def test_every_state_is_taken_up_again(cfg, make_runner, tmp_path, loop, accumulation, scaler, ema):
    """Stops inside an epoch and, with accumulation, inside a window: 6 + 1 and 12 + 3 of 4."""
    if loop == 'iter':
        by_iteration(cfg)
    if not ema:
        cfg['custom_hooks'] = []
    if scaler:
        cfg['optim_wrapper']['type'] = 'ScaledOptimWrapper'
    cfg['optim_wrapper']['accumulative_counts'] = accumulation
    assert_same_end(*whole_and_resumed(cfg, make_runner, tmp_path, [7, 15]))


@pytest.mark.parametrize('loop', ['epoch', 'iter, infinite'])
@pytest.mark.parametrize('persistent', [False, True])
def test_workers_change_nothing(cfg, make_runner, tmp_path, loop, persistent):
    """The whole run without workers, the resumed one with two, which read ahead."""
    if loop != 'epoch':
        by_iteration(cfg, 'InfiniteSampler')
    files = whole_and_resumed(
        cfg, make_runner, tmp_path, [8], num_workers=2, persistent_workers=persistent
    )
    assert_same_end(*files)


def test_no_past_sample_is_loaded_again(cfg, make_runner, monkeypatch):
    for loop in ('epoch', 'iter'):
        if loop == 'iter':
            by_iteration(cfg, 'InfiniteSampler')
        cfg['work_dir'] += loop
        hooks = cfg['custom_hooks']
        cfg['custom_hooks'] = [*hooks, {'type': 'CrashHook', 'iteration': 16}]
        with pytest.raises(Crash):
            make_runner(cfg).train()
        cfg['custom_hooks'] = hooks
        dataset = DATASETS.get('ToyDataset')
        loaded = []
        load = dataset.__getitem__

        def counting(self, index, load=load, loaded=loaded):
            loaded.append(index)
            return load(self, index)

        with monkeypatch.context() as patch:
            patch.setattr(dataset, '__getitem__', counting)
            without = {'val_cfg': None, 'val_dataloader': None, 'val_evaluator': None}
            make_runner(cfg, resume=True, **without).train()
        assert len(loaded) == 2 * 4, loop


@pytest.mark.parametrize('loop', ['epoch', 'iter'])
def test_a_validation_that_was_due_is_made_up_for(cfg, make_runner, tmp_path, loop):
    """The run stops between the checkpoint and the validation after it."""
    stop = 12
    if loop == 'iter':
        by_iteration(cfg)
        stop = 14
    whole, resumed = whole_and_resumed(cfg, make_runner, tmp_path, [stop], where='val')
    assert_same_end(whole, resumed)
    scores = torch.load(resumed, weights_only=True)['message_hub']['log_scalars']['val/score']
    assert len(scores['log']) == {'epoch': 1, 'iter': 2}[loop]


def test_a_validation_after_the_checkpoint_of_an_epoch_is_made_up_for(cfg, make_runner, tmp_path):
    cfg['default_hooks']['checkpoint'].update(by_epoch=True, interval=1)
    files = whole_and_resumed(cfg, make_runner, tmp_path, [12], where='val', last='epoch_3.pth')
    assert_same_end(*files)


def test_a_validation_is_not_repeated(cfg, make_runner, tmp_path):
    """The first one is the best so far, so the checkpoint is written again after it."""
    cfg['default_hooks']['checkpoint'].update(save_best='score', rule='greater')
    cfg['train_cfg']['val_interval'] = 1
    files = whole_and_resumed(cfg, make_runner, tmp_path, [6], where='after val')
    assert_same_end(*files)


def test_a_stop_before_the_first_checkpoint_is_a_new_run(cfg, make_runner, tmp_path):
    cfg['default_hooks']['checkpoint']['interval'] = 5
    assert_same_end(*whole_and_resumed(cfg, make_runner, tmp_path, [3]))


def start_two(*command):
    """As torchrun does, without its agent."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    env = {
        **os.environ,
        'CUDA_VISIBLE_DEVICES': '',
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
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output


def test_two_processes_resume_inside_an_accumulation_window(cfg, tmp_path):
    """Each has gradients, generators and data of its own; the toy set does not divide evenly."""
    cfg['train_cfg']['max_epochs'] = 4
    cfg['param_scheduler']['end'] = 4
    cfg['train_dataloader']['dataset']['length'] = 27
    cfg['optim_wrapper']['accumulative_counts'] = 3
    cfg['randomness']['diff_rank_seed'] = True
    config = tmp_path / 'cfg.json'
    config.write_text(json.dumps(cfg))
    script = Path(__file__).with_name('two_processes.py')
    start_two(script, config)
    assert_same_end(tmp_path / 'run_whole' / 'iter_16.pth', tmp_path / 'run' / 'iter_16.pth')
