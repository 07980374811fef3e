import copy
import logging
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer

from evamm.checkpoints import CheckpointError
from evamm.engine import EMAHook


class StopAfterEpoch(Hook):
    """Ends a run as a crash does: nothing after the checkpoint of that epoch happens."""

    class Crash(Exception):
        pass

    priority = 'LOWEST'

    def __init__(self, epoch):
        self.epoch = epoch

    def after_train_epoch(self, runner):
        if runner.epoch + 1 == self.epoch:
            raise self.Crash


class Losses(Hook):
    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs['loss'].item())


def crash_after(runner, epoch):
    runner.register_hook(StopAfterEpoch(epoch))
    with pytest.raises(StopAfterEpoch.Crash):
        runner.train()


def same(a, b):
    """Bitwise equality of nested states."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def read(path):
    return torch.load(path, weights_only=True)


def test_a_checkpoint_holds_tensors_and_plain_values_only(toy_cfg, make_runner, run_dir):
    make_runner(toy_cfg).train()
    checkpoint = read(run_dir / 'epoch_2.pth')  # torch's own allow-list is enough
    assert checkpoint['meta']['epoch'] == 2 and checkpoint['meta']['iter'] == 12
    assert checkpoint['meta']['dataset_meta'] == {'classes': ('minus', 'plus')}
    assert {'optimizer', 'param_schedulers', 'rng', 'message_hub'} <= set(checkpoint)


@pytest.mark.parametrize('accumulation', [1, 2])
def test_resume_at_an_epoch_boundary_is_bitwise_exact(
    toy_cfg, make_runner, run_dir, tmp_path, accumulation
):
    toy_cfg['train_cfg']['max_epochs'] = 3
    toy_cfg['optim_wrapper']['accumulative_counts'] = accumulation
    toy_cfg['default_hooks']['checkpoint'].update(save_best='score', rule='greater')
    toy_cfg['param_scheduler']['end'] = 3
    whole = make_runner(toy_cfg, work_dir=str(tmp_path / 'whole'))
    whole_losses = Losses()
    whole.register_hook(whole_losses)
    whole.train()

    first = make_runner(toy_cfg)
    first_losses = Losses()
    first.register_hook(first_losses)
    crash_after(first, 2)
    random.seed(99), np.random.seed(99), torch.manual_seed(99)  # another process has other states
    second = make_runner(toy_cfg, resume=True, randomness={'seed': None})
    second_losses = Losses()
    second.register_hook(second_losses)
    second.train()

    assert first_losses.values + second_losses.values == whole_losses.values
    one, two = read(tmp_path / 'whole' / 'epoch_3.pth'), read(run_dir / 'epoch_3.pth')
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'rng'):
        assert same(one[part], two[part]), part
    assert one['meta']['iter'] == two['meta']['iter']
    history = 'train/loss'
    assert same(
        one['message_hub']['log_scalars'][history], two['message_hub']['log_scalars'][history]
    )


def test_resume_continues_the_log_history(toy_cfg, make_runner):
    crash_after(make_runner(toy_cfg), 1)
    runner = make_runner(toy_cfg, resume=True)
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss')
    assert isinstance(losses, HistoryBuffer)
    assert len(losses.data[0]) == 12


def test_validation_leaves_the_random_numbers_of_training_alone(toy_cfg, make_runner):
    """With and without validation: the same weights."""
    results = []
    for interval in (1, 5):
        toy_cfg['train_cfg'].update(val_interval=interval, max_epochs=3)
        toy_cfg['param_scheduler']['end'] = 3
        runner = make_runner(toy_cfg)
        runner.train()
        results.append(copy.deepcopy(runner.model.state_dict()))
    assert same(*results)


def test_resume_picks_the_newest_that_is_whole(toy_cfg, make_runner, run_dir, caplog):
    make_runner(toy_cfg).train()
    newest = run_dir / 'epoch_2.pth'
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    assert (run_dir / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    runner = make_runner(toy_cfg, resume=True)
    runner.logger.addHandler(caplog.handler)
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    assert len(losses.values) == 6  # epoch 2 again
    assert any(
        'Passing over' in record.getMessage() and 'epoch_2.pth' in record.getMessage()
        for record in caplog.records
    )
    assert read(newest)['meta']['epoch'] == 2


def test_resume_with_only_damaged_checkpoints_stops(toy_cfg, make_runner, run_dir):
    run_dir.mkdir()
    for name in ('epoch_1.pth', 'epoch_2.pth'):
        (run_dir / name).write_bytes(b'PK\x03\x04' + bytes(100))
    with pytest.raises(CheckpointError, match='none of its 2 checkpoints'):
        make_runner(toy_cfg, resume=True).train()
    assert (run_dir / 'epoch_2.pth').read_bytes() == b'PK\x03\x04' + bytes(100)


def test_resume_without_a_checkpoint_begins(toy_cfg, make_runner, run_dir):
    make_runner(toy_cfg, resume=True).train()
    assert (run_dir / 'epoch_2.pth').is_file()


def test_resume_from_weights_only_says_what_to_do(toy_cfg, make_runner, run_dir, tmp_path):
    runner = make_runner(toy_cfg)
    weights = tmp_path / 'weights.pth'
    torch.save({'state_dict': runner.model.state_dict()}, weights)
    with pytest.raises(CheckpointError, match='optimizer is missing.*load_from'):
        make_runner(toy_cfg, resume=True, load_from=str(weights)).train()


def test_resume_takes_a_checkpoint_of_the_stock_runner(toy_cfg, make_runner, run_dir):
    from mmengine.runner import Runner

    toy_cfg['custom_hooks'] = []
    toy_cfg['default_hooks']['checkpoint']['type'] = 'CheckpointHook'
    Runner.from_cfg({**copy.deepcopy(toy_cfg), 'experiment_name': 'stock'}).train()
    toy_cfg['train_cfg']['max_epochs'] = 3
    runner = make_runner(toy_cfg, resume=True)
    runner.train()
    assert runner.epoch == 3
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 18


def test_a_file_with_code_is_refused_and_nothing_runs(toy_cfg, make_runner, run_dir, tmp_path):
    class Bomb:
        def __reduce__(self):
            return exec, (f'open({str(tmp_path / "ran")!r}, "w")',)

    for key, value in (('load_from', False), ('load_from', True)):
        bomb = tmp_path / 'bomb.pth'
        torch.save({'state_dict': {}, 'meta': Bomb(), 'message_hub': {}, 'optimizer': {}}, bomb)
        with pytest.raises(CheckpointError, match='exec'):
            make_runner(toy_cfg, **{key: str(bomb)}, resume=value).train()
    assert not (tmp_path / 'ran').exists()


def test_a_failed_save_is_loud_and_keeps_the_old_file(toy_cfg, make_runner, run_dir, monkeypatch):
    toy_cfg['default_hooks']['checkpoint']['filename_tmpl'] = 'always_the_same_{}.pth'
    runner = make_runner(toy_cfg)
    runner.train()
    path = run_dir / 'always_the_same_2.pth'
    before = path.read_bytes()

    def disk_full(obj, file):
        file.write(b'half a checkpoint')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', disk_full)
    with pytest.raises(CheckpointError, match='No space left on device'):
        runner.save_checkpoint(str(run_dir), path.name)
    assert path.read_bytes() == before
    assert not list(run_dir.glob('.*tmp*'))


KILLED_WHILE_WRITING = """
    import os, signal, sys, torch
    from evamm.checkpoints import write_checkpoint
    path = sys.argv[1]
    write_checkpoint({'step': torch.tensor(1)}, path)
    real_save = torch.save
    def dies_half_way(obj, file):
        file.write(b'half')
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    torch.save = dies_half_way
    write_checkpoint({'step': torch.tensor(2)}, path)
"""


def test_a_kill_in_the_middle_of_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    process = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(KILLED_WHILE_WRITING), str(path)], check=False
    )
    assert process.returncode == -9
    assert read(path)['step'] == 1


def test_rotation_deletes_after_the_new_one_is_complete(toy_cfg, make_runner, run_dir, monkeypatch):
    toy_cfg['default_hooks']['checkpoint'].update(max_keep_ckpts=1)
    toy_cfg['train_cfg']['max_epochs'] = 4
    runner = make_runner(toy_cfg)
    seen = []
    save = type(runner).save_checkpoint

    def spying_save(self, out_dir, filename, *args, **kwargs):
        seen.append(sorted(path.name for path in run_dir.glob('*.pth')))
        save(self, out_dir, filename, *args, **kwargs)

    monkeypatch.setattr(type(runner), 'save_checkpoint', spying_save)
    runner.train()
    assert seen == [[], ['epoch_1.pth'], ['epoch_2.pth'], ['epoch_3.pth']]
    assert [path.name for path in run_dir.glob('*.pth')] == ['epoch_4.pth']


def test_rotation_goes_on_after_a_resume(toy_cfg, make_runner, run_dir):
    toy_cfg['default_hooks']['checkpoint'].update(max_keep_ckpts=2)
    toy_cfg['train_cfg']['max_epochs'] = 5
    crash_after(make_runner(toy_cfg), 3)
    make_runner(toy_cfg, resume=True).train()
    assert sorted(path.name for path in run_dir.glob('*.pth')) == ['epoch_4.pth', 'epoch_5.pth']


@pytest.mark.parametrize(('accumulation', 'enable', 'factor'), [(1, 1, 0.5), (4, 1, 2), (4, 0, 1)])
def test_auto_scale_lr_counts_accumulation(toy_cfg, make_runner, accumulation, enable, factor):
    toy_cfg['optim_wrapper']['accumulative_counts'] = accumulation
    toy_cfg['optim_wrapper']['paramwise_cfg'] = {'norm_decay_mult': 0.0}  # several groups
    toy_cfg['auto_scale_lr'] = {'enable': bool(enable), 'base_batch_size': 8}
    runner = make_runner(toy_cfg)
    wrapper = runner.build_optim_wrapper(toy_cfg['optim_wrapper'])
    runner.scale_lr(wrapper, runner.auto_scale_lr)
    assert {group['lr'] for group in wrapper.optimizer.param_groups} == {1e-2 * factor}
    assert wrapper.get_lr()['base_lr'] == [1e-2 * factor]


def test_load_from_starts_the_average_from_the_loaded_weights(toy_cfg, make_runner, tmp_path):
    donor = make_runner(toy_cfg)
    with torch.no_grad():
        donor.model.net[0].weight.fill_(0.5)
    torch.save(donor.model.state_dict(), tmp_path / 'donor.pth')
    toy_cfg['optim_wrapper']['optimizer']['lr'] = 0.0
    runner = make_runner(toy_cfg, load_from=str(tmp_path / 'donor.pth'))
    runner.train()
    ema = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model.module
    assert (runner.model.net[0].weight == 0.5).all()
    assert (ema.net[0].weight == 0.5).all()


def test_a_value_that_is_not_data_is_left_out_with_a_warning(toy_cfg, make_runner, run_dir, caplog):
    runner = make_runner(toy_cfg)
    runner.logger.addHandler(caplog.handler)
    caplog.set_level(logging.WARNING)
    runner.message_hub.update_info('function', print)
    runner.message_hub.update_info('best', np.float32(0.5))
    runner.train()
    info = read(run_dir / 'epoch_2.pth')['message_hub']['runtime_info']
    assert 'function' not in info and info['best'] == 0.5
    assert any("'function'] holds a builtin" in record.getMessage() for record in caplog.records)


def test_an_unknown_load_option_is_named(toy_cfg, make_runner, run_dir):
    make_runner(toy_cfg).train()
    toy_cfg.update(load_from=str(run_dir / 'epoch_2.pth'), load_options={'prefer_emma': False})
    runner = make_runner(toy_cfg)
    with pytest.raises(CheckpointError, match='load_options: prefer_emma.*prefer_ema'):
        runner.load_or_resume()


@pytest.fixture
def matmul():
    yield torch.backends.cuda.matmul
    torch.backends.cuda.matmul.allow_tf32 = False  # PyTorch's default


def test_tf32_is_set_for_gpus_only(toy_cfg, make_runner, matmul):
    x = torch.randn(64, 512)
    expected = x @ x.T
    for setting, found in ((None, False), (True, True), (None, True), (False, False)):
        toy_cfg['env_cfg'] = {} if setting is None else {'tf32': setting}
        make_runner(toy_cfg)
        assert matmul.allow_tf32 == found
        assert torch.backends.mkldnn.matmul.fp32_precision in ('none', 'ieee')
        assert torch.equal(x @ x.T, expected)
