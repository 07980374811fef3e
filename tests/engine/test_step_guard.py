"""Steps that fail do not reach the weights."""

import copy

import pytest
import torch
from exact_runs import same
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement

from evamm.engine.loops.batches import part_of, shallow_copy
from evamm.engine.loops.step_guard import NonFiniteError
from evamm.engine.stop_signals import SharedFlag


class FaultHook(Hook):
    """Makes the loss or a gradient NaN in given iterations, always or the first time only."""

    def __init__(self, iterations, what='loss', once=False):
        self.iterations, self.what, self.once = set(iterations), what, once
        self.calls = []

    def before_train(self, runner):
        model = runner.model
        forward = type(model).forward

        def faulty(inputs, labels, mode='tensor'):
            iteration = runner.iter + 1
            self.calls.append(iteration)
            if mode != 'loss' or iteration not in self.iterations:
                return forward(model, inputs, labels, mode=mode)
            if self.once:
                self.iterations.discard(iteration)
            if self.what == 'loss':
                losses = forward(model, inputs, labels, mode=mode)
                return {'loss': losses['loss'] * float('nan')}
            if self.what == 'input':
                inputs = inputs * float('inf')
            losses = forward(model, inputs, labels, mode=mode)
            if self.what == 'gradient':
                losses['loss'].register_hook(lambda gradient: gradient * float('inf'))
            return losses

        model.forward = faulty


class WeightsHook(Hook):
    def __init__(self):
        self.states = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.states.append(copy.deepcopy(runner.model.state_dict()))


@pytest.fixture
def cfg(toy_cfg):
    toy_cfg['custom_hooks'] = []
    return toy_cfg


@pytest.fixture(params=[True, False], ids=['fused', 'foreach'])
def any_cfg(cfg, request):
    """A fused optimizer skips on the device, others are not called."""
    cfg['optim_wrapper']['optimizer']['fused'] = request.param
    return cfg


def run(make_runner, cfg, *hooks, **overrides):
    runner = make_runner(cfg, **overrides)
    watch = WeightsHook()
    for hook in (*hooks, watch):
        runner.register_hook(hook)
    runner.train()
    return runner, watch.states


@pytest.mark.parametrize('what', ['loss', 'gradient', 'input'])
@pytest.mark.parametrize('accumulation', [1, 3])
def test_a_transient_fault_leaves_no_trace(
    any_cfg, make_runner, tmp_path, what, accumulation, caplog
):
    cfg = any_cfg
    cfg['custom_hooks'] = [{'type': 'evamm.ThroughputHook', 'matmul_tflops': 1.0}]
    cfg['optim_wrapper']['clip_grad'] = {'max_norm': 0.5}
    cfg['optim_wrapper']['accumulative_counts'] = accumulation
    other, clean = run(make_runner, cfg, work_dir=str(tmp_path / 'clean'))
    runner = make_runner(cfg)
    runner.logger.addHandler(caplog.handler)
    watch = WeightsHook()
    runner.register_hook(FaultHook([5], what, once=True))
    runner.register_hook(watch)
    runner.train()
    assert same(watch.states[5:], clean[5:])
    norms = [r.message_hub.get_scalar('train/grad_norm').data[0].tolist() for r in (runner, other)]
    assert norms[0] == norms[1] and len(norms[0]) == 12 // accumulation
    found = [r.optim_wrapper.optimizer.state_dict()['state'] for r in (runner, other)]
    assert same(*found)
    assert any('transient' in record.getMessage() for record in caplog.records)
    assert runner.train_loop.guard.skipped == 0


@pytest.mark.parametrize('what', ['loss', 'gradient', 'input'])
def test_a_reproducible_fault_is_skipped(any_cfg, make_runner, what, caplog):
    runner = make_runner(any_cfg)
    runner.logger.addHandler(caplog.handler)
    watch, fault = WeightsHook(), FaultHook([5], what)
    runner.register_hook(fault)
    runner.register_hook(watch)
    runner.train()
    assert fault.calls.count(5) == 2
    assert same(watch.states[4], watch.states[3])  # statistics of batch norm included
    assert not same(watch.states[5], watch.states[4])
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())
    assert any('reproducible' in record.getMessage() for record in caplog.records)
    assert runner.train_loop.guard.skipped == 1


@pytest.mark.parametrize('clip', [None, {'max_norm': 0.5}])
def test_gradients_are_read_once_for_check_clipping_and_log(cfg, make_runner, monkeypatch, clip):
    cfg['custom_hooks'] = [{'type': 'evamm.ThroughputHook', 'matmul_tflops': 1.0}]
    cfg['optim_wrapper']['clip_grad'] = clip
    calls = []
    norm = torch._foreach_norm  # what every way to a total norm ends in
    monkeypatch.setattr(torch, '_foreach_norm', lambda *a, **k: calls.append(1) or norm(*a, **k))
    runner, _ = run(make_runner, cfg)
    assert len(calls) == runner.iter == 12


def test_a_fused_step_is_queued_before_its_result_is_awaited(cfg, make_runner, monkeypatch):
    """The device has work while the host looks at the check."""
    cfg['optim_wrapper']['optimizer']['fused'] = True
    runner = make_runner(cfg)
    order = []
    wait = SharedFlag.wait
    monkeypatch.setattr(SharedFlag, 'wait', lambda flag: order.append('wait') or wait(flag))

    class Watch(Hook):
        def before_train(self, runner):
            self.handle = runner.optim_wrapper.optimizer.register_step_pre_hook(
                lambda *_: order.append('step')
            )

    runner.register_hook(Watch())
    runner.train()
    assert order == ['step', 'wait'] * 12
    assert not hasattr(runner.optim_wrapper.optimizer, 'found_inf')


def test_a_window_of_accumulation_is_skipped_as_a_whole(cfg, make_runner):
    cfg['optim_wrapper']['accumulative_counts'] = 3
    cfg['model']['norm'] = False
    runner, states = run(make_runner, cfg, FaultHook([6], 'loss'))
    assert same(states[5], states[2])  # iterations 4, 5 and 6
    assert not same(states[8], states[5])  # 7, 8 and 9


@pytest.mark.parametrize('accumulation', [1, 2])
def test_too_many_skips_stop_the_run_with_what_is_needed_to_reproduce(
    cfg, make_runner, run_dir, accumulation
):
    cfg['train_cfg']['max_skips'] = 1
    cfg['optim_wrapper']['accumulative_counts'] = accumulation
    runner = make_runner(cfg)
    runner.register_hook(FaultHook([2, 8], 'input'))
    with pytest.raises(NonFiniteError, match='iteration 8.*max_skips is 1.*state.pth'):
        runner.train()
    bundle = run_dir / 'non_finite_iter_8'
    assert {path.name for path in bundle.iterdir()} == {'state.pth', 'batch_rank0.pth', 'config.py'}
    batch = torch.load(bundle / 'batch_rank0.pth', weights_only=True)['batch']

    class Batches(Hook):
        def __init__(self):
            self.seen = []

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            self.seen.append((runner.iter + 1, data_batch))

    again = make_runner(cfg, resume=True, load_from=str(bundle / 'state.pth'))
    batches, fault = Batches(), FaultHook([8], 'input')
    again.register_hook(batches)
    again.register_hook(fault)
    again.train_loop.guard.max_skips = 5
    again.train()
    assert batches.seen[0][0] == 8  # at once
    assert same(batches.seen[0][1], batch)
    assert fault.calls[:2] == [8, 8]


def test_the_check_can_be_switched_off(cfg, make_runner):
    cfg['train_cfg']['max_skips'] = None
    cfg['model']['norm'] = False
    runner, states = run(make_runner, cfg, FaultHook([5], 'loss'))
    assert not all(torch.isfinite(value).all() for value in states[-1].values())


def test_a_loss_scaler_keeps_its_own_skips(cfg, make_runner):
    """Its scale is meant to become too large now and then."""
    cfg['optim_wrapper']['type'] = 'ScaledOptimWrapper'
    runner = make_runner(cfg)
    fault = FaultHook([5], 'gradient')
    runner.register_hook(fault)
    runner.train()
    assert fault.calls.count(5) == 1
    assert runner.train_loop.guard.skipped == 0


class OutOfMemoryHook(Hook):
    """A device that holds three samples."""

    def before_train(self, runner):
        model = runner.model
        forward = type(model).forward

        def limited(inputs, labels, mode='tensor'):
            losses = forward(model, inputs, labels, mode=mode)
            if mode == 'loss' and len(inputs) > 3:
                raise torch.OutOfMemoryError('injected')
            return losses

        model.forward = limited


def gradients_of_steps(make_runner, cfg, *hooks, **overrides):
    runner = make_runner(cfg, **overrides)
    seen = []

    class Watch(Hook):
        def before_train(self, runner):
            step = runner.optim_wrapper.optimizer.step

            def watched(*args, **kwargs):
                seen.append([param.grad.clone() for param in runner.model.parameters()])
                return step(*args, **kwargs)

            runner.optim_wrapper.optimizer.step = watched

    for hook in (*hooks, Watch()):
        runner.register_hook(hook)
    runner.train()
    return seen


@pytest.mark.parametrize('accumulation', [1, 3])
def test_a_split_batch_has_the_gradients_of_the_whole(cfg, make_runner, tmp_path, accumulation):
    cfg['model'].update(norm=False, dropout=0.0)
    cfg['train_dataloader']['batch_size'] = 7
    cfg['optim_wrapper']['accumulative_counts'] = accumulation
    whole = gradients_of_steps(make_runner, cfg, work_dir=str(tmp_path / 'whole'))
    cfg['train_cfg']['split_on_oom'] = True
    split = gradients_of_steps(make_runner, cfg, OutOfMemoryHook())
    assert len(whole) == len(split) >= 2
    for one, two in zip(whole, split, strict=True):
        for a, b in zip(one, two, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_out_of_memory_is_an_error_by_default(cfg, make_runner):
    runner = make_runner(cfg)
    runner.register_hook(OutOfMemoryHook())
    with pytest.raises(torch.OutOfMemoryError):
        runner.train()


def test_what_a_preprocessor_writes_does_not_reach_the_original_batch():
    sample = BaseDataElement(metainfo={'shape': (2, 2)})
    sample.boxes = BaseDataElement(metainfo={}, scores=torch.ones(2))
    batch = {'inputs': [torch.zeros(2)], 'data_samples': [sample]}
    copied = shallow_copy(batch)
    copied['inputs'].append(1)
    copied['data_samples'][0].set_metainfo({'padded': True})
    copied['data_samples'][0].label = 3
    copied['data_samples'][0].boxes.masks = 5
    assert len(batch['inputs']) == 1
    assert 'padded' not in sample.metainfo and 'label' not in sample
    assert 'masks' not in sample.boxes
    assert copied['data_samples'][0].boxes.scores is sample.boxes.scores


def test_part_of_takes_the_same_samples_everywhere():
    batch = {'inputs': torch.arange(6).view(3, 2), 'data_samples': ['a', 'b', 'c'], 'size': 3}
    part = part_of(batch, 1, 3)
    assert torch.equal(part['inputs'], torch.tensor([[2, 3], [4, 5]]))
    assert part['data_samples'] == ['b', 'c'] and part['size'] == 3
