"""Signals, saving in the background, and what is left behind."""

import os
import signal
import threading
import time

import pytest
import torch
from exact_runs import assert_same_end, by_iteration, scramble
from mmengine.hooks import Hook

from evamm.checkpoints import CheckpointError, write_checkpoint
from evamm.engine.runner import background_writer


class SignalHook(Hook):
    """Sends this process a signal, as a scheduler does that wants its machine back."""

    def __init__(self, iteration, number=signal.SIGTERM, where='train'):
        self.iteration, self.number, self.where = iteration, number, where

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.where == 'train' and runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), self.number)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.where == 'val' and runner.iter == self.iteration:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def cfg(toy_cfg):
    toy_cfg['train_cfg'].update(max_epochs=3, val_interval=1)
    toy_cfg['param_scheduler']['end'] = 3
    toy_cfg['default_hooks']['checkpoint'].update(max_keep_ckpts=2)
    return toy_cfg


@pytest.mark.parametrize(
    ('loop', 'iteration', 'number', 'where'),
    [
        ('epoch', 8, signal.SIGTERM, 'train'),
        ('epoch', 12, signal.SIGINT, 'train'),
        ('iter', 8, signal.SIGTERM, 'train'),
        ('epoch', 6, signal.SIGTERM, 'val'),
        ('iter', 7, signal.SIGTERM, 'val'),
    ],
)
def test_a_signal_saves_and_the_resumed_run_is_exact(
    cfg, make_runner, tmp_path, run_dir, loop, iteration, number, where
):
    if loop == 'iter':
        by_iteration(cfg)
        cfg['default_hooks']['checkpoint'].update(by_epoch=False, interval=18)
    last = 'iter_18.pth' if loop == 'iter' else 'epoch_3.pth'
    make_runner(cfg, work_dir=str(tmp_path / 'whole')).train()

    scramble()
    runner = make_runner(cfg)
    runner.register_hook(SignalHook(iteration, number, where))
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as stopped:
        runner.train()
    assert stopped.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert runner.iter == iteration  # the iteration was finished, none was begun
    saved = sorted(path.name for path in run_dir.glob('*.pth'))
    if (loop, where) == ('epoch', 'val'):
        assert saved == ['epoch_1.pth']  # it is the state of this moment already
    else:
        assert f'interrupted_{iteration}.pth' in saved

    scramble()
    make_runner(cfg, resume=True).train()
    assert_same_end(tmp_path / 'whole' / last, run_dir / last)
    assert not list(run_dir.glob('interrupted*'))


def test_the_second_interrupt_is_immediate(cfg, make_runner):
    runner = make_runner(cfg)
    runner.register_hook(SignalHook(3, signal.SIGINT))
    runner.register_hook(SignalHook(3, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        runner.train()


def test_a_checkpoint_written_in_the_background_is_of_the_moment_of_the_save(
    cfg, make_runner, tmp_path, run_dir, monkeypatch
):
    """Every write takes longer than an iteration; the loop changes the weights meanwhile."""
    cfg['default_hooks']['checkpoint'].update(by_epoch=False, interval=3, max_keep_ckpts=-1)
    make_runner(cfg, work_dir=str(tmp_path / 'whole')).train()
    threads = set()

    def slow(obj, path):
        threads.add(threading.current_thread().name)
        time.sleep(0.05)
        write_checkpoint(obj, path)

    monkeypatch.setattr(background_writer, 'write_checkpoint', slow)
    cfg['default_hooks']['checkpoint']['async_save'] = True
    make_runner(cfg).train()
    assert threading.main_thread().name not in threads and threads
    for iteration in range(3, 19, 3):
        name = f'iter_{iteration}.pth'
        assert_same_end(tmp_path / 'whole' / name, run_dir / name)


def test_rotation_waits_for_the_background(cfg, make_runner, run_dir, monkeypatch):
    seen = []

    def spying(obj, path):
        seen.append(len(list(run_dir.glob('epoch_*.pth'))))
        write_checkpoint(obj, path)

    monkeypatch.setattr(background_writer, 'write_checkpoint', spying)
    cfg['train_cfg'].update(max_epochs=4)
    cfg['default_hooks']['checkpoint'].update(async_save=True, max_keep_ckpts=1)
    make_runner(cfg).train()
    assert seen == [0, 1, 1, 1]
    assert [path.name for path in run_dir.glob('*.pth')] == ['epoch_4.pth']


@pytest.mark.parametrize('failing', [1, 3])
def test_a_failed_write_in_the_background_stops_the_run(
    cfg, make_runner, run_dir, monkeypatch, failing
):
    """At the next save; the last one at the end."""

    def disk_full(obj, path):
        if path.endswith(f'epoch_{failing}.pth'):
            raise CheckpointError(f'{path}: could not be written (No space left on device)')
        write_checkpoint(obj, path)

    monkeypatch.setattr(background_writer, 'write_checkpoint', disk_full)
    cfg['default_hooks']['checkpoint'].update(async_save=True)
    runner = make_runner(cfg)
    with pytest.raises(CheckpointError, match='No space left'):
        runner.train()
    assert runner.epoch == min(failing, 2) or runner.epoch == 3
    assert not (run_dir / f'epoch_{failing}.pth').exists()


def test_files_of_killed_processes_are_removed_at_the_start(cfg, make_runner, run_dir):
    make_runner(cfg).train()
    from evamm.checkpoints.writing import _host

    orphan = run_dir / f'.epoch_9.pth.{_host()}.999999999.evamm-tmp'
    orphan.write_bytes(b'half')
    runner = make_runner(cfg, resume=True)
    runner.register_hook(SignalHook(1))
    runner.train()
    assert not orphan.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_read_only_folder_is_a_clear_error(cfg, make_runner, run_dir):
    make_runner(cfg).train()
    run_dir.chmod(0o500)
    with pytest.raises(CheckpointError, match='Permission denied'):
        make_runner(cfg).save_checkpoint(str(run_dir), 'x.pth')


def test_a_full_disk_leaves_the_older_checkpoint(cfg, make_runner, run_dir, tmp_path):
    """The limit on file sizes stops a write as a full disk does."""
    import resource

    make_runner(cfg).train()
    path = run_dir / 'epoch_3.pth'
    before = path.read_bytes()
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(CheckpointError, match='File too large'):
            write_checkpoint({'x': torch.zeros(len(before))}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert not list(run_dir.glob('.*tmp'))
