import copy

import pytest
import torch
from mmengine.hooks import Hook

from evamm.engine import EMAHook


class Spy(Hook):
    """Records the raw weights after every iteration, and what validation saw."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.initial = None
        self.raw = []
        self.validated = []

    def before_train(self, runner):
        self.initial = copy.deepcopy(runner.model.state_dict())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.raw.append(copy.deepcopy(runner.model.state_dict()))

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self.validated.append(runner.model.net[0].weight.detach().clone())


def train(toy_cfg, make_runner, accumulation=1, **hook):
    toy_cfg['custom_hooks'] = [{'type': 'evamm.EMAHook', 'momentum': 0.1, **hook}]
    toy_cfg['optim_wrapper']['accumulative_counts'] = accumulation
    runner = make_runner(toy_cfg)
    spy = Spy()
    runner.register_hook(spy)
    runner.train()
    ema = next(h for h in runner.hooks if isinstance(h, EMAHook)).ema_model.module.state_dict()
    return runner, spy, ema


def moving_average(spy, name, steps, decay=0.9):
    """timm's ModelEma, one tensor, one step at a time, in double precision."""
    average = spy.initial[name].double()
    for step in steps:
        average = decay * average + (1 - decay) * spy.raw[step][name].double()
    return average


@pytest.mark.parametrize('accumulation', [1, 2, 5])
def test_equals_the_loop_formula_at_every_optimizer_step(toy_cfg, make_runner, accumulation):
    _, spy, ema = train(toy_cfg, make_runner, accumulation)
    # The last window of 12 iterations may be a short one and is an optimizer step all the same.
    steps = [i for i in range(12) if (i + 1) % accumulation == 0 or i == 11]
    for name in ('net.0.weight', 'net.1.bias', 'net.4.bias'):
        expected = moving_average(spy, name, steps)
        torch.testing.assert_close(ema[name].double(), expected, rtol=1e-5, atol=1e-7)
        assert not torch.allclose(ema[name].double(), spy.raw[-1][name].double(), rtol=1e-3)


def test_buffers_are_copied(toy_cfg, make_runner):
    _, spy, ema = train(toy_cfg, make_runner)
    for name in ('net.1.running_mean', 'net.1.num_batches_tracked'):
        assert torch.equal(ema[name], spy.raw[-1][name])


def test_interval_and_begin(toy_cfg, make_runner):
    _, spy, ema = train(toy_cfg, make_runner, interval=3)
    expected = moving_average(spy, 'net.0.weight', [2, 5, 8, 11])
    torch.testing.assert_close(ema['net.0.weight'].double(), expected, rtol=1e-5, atol=1e-7)
    _, spy, ema = train(toy_cfg, make_runner, begin_iter=8)
    spy.initial = spy.raw[6]
    expected = moving_average(spy, 'net.0.weight', [7, 8, 9, 10, 11])
    torch.testing.assert_close(ema['net.0.weight'].double(), expected, rtol=1e-5, atol=1e-7)


def test_validates_the_average_and_gives_the_weights_back(toy_cfg, make_runner):
    runner, spy, ema = train(toy_cfg, make_runner)
    assert torch.equal(spy.validated[-1], ema['net.0.weight'])
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, spy.raw[-1][name])


def test_validates_both(toy_cfg, make_runner):
    class Metrics(Hook):
        priority = 'LOWEST'

        def after_val_epoch(self, runner, metrics=None):
            self.metrics = dict(metrics)

    toy_cfg['custom_hooks'] = [
        {'type': 'evamm.EMAHook', 'momentum': 0.1, 'evaluate_on_origin': True}
    ]
    toy_cfg['default_hooks']['checkpoint'].update(save_best='score_origin', rule='greater')
    runner = make_runner(toy_cfg)
    spy, metrics = Spy(), Metrics()
    runner.register_hook(spy)
    runner.register_hook(metrics)
    runner.train()
    ema = next(h for h in runner.hooks if isinstance(h, EMAHook)).ema_model.module
    raw = copy.deepcopy(ema)
    raw.load_state_dict(spy.raw[-1])
    for model, name in ((ema, 'score'), (raw, 'score_origin')):
        points = runner.val_dataloader.dataset.points
        model.eval()
        expected = model.net(points)[:, 0].mean().item()
        assert metrics.metrics[name] == pytest.approx(expected, rel=1e-5)
    assert metrics.metrics['score'] != metrics.metrics['score_origin']
    logged = runner.message_hub.get_scalar('val/score_origin').current()
    assert logged == metrics.metrics['score_origin']


def test_validates_the_raw_weights_only(toy_cfg, make_runner):
    _, spy, _ = train(toy_cfg, make_runner, evaluate_on_ema=False, evaluate_on_origin=True)
    assert torch.equal(spy.validated[-1], spy.raw[-1]['net.0.weight'])


def test_checkpoint_has_the_average_as_its_weights(toy_cfg, make_runner, run_dir):
    _, spy, ema = train(toy_cfg, make_runner)
    checkpoint = torch.load(run_dir / 'epoch_2.pth', weights_only=True)
    for name in ema:
        assert torch.equal(checkpoint['state_dict'][name], ema[name])
        assert torch.equal(checkpoint['ema_state_dict'][f'module.{name}'], spy.raw[-1][name])


def test_testing_uses_what_was_loaded(toy_cfg, make_runner, run_dir):
    """No copy of the model is made, and the raw weights are tested if they were asked for."""
    _, spy, ema = train(toy_cfg, make_runner)
    toy_cfg.update(
        test_dataloader=toy_cfg['val_dataloader'],
        test_evaluator=toy_cfg['val_evaluator'],
        test_cfg={},
        load_from=str(run_dir / 'epoch_2.pth'),
    )
    for prefer_ema, weights in ((True, ema), (False, spy.raw[-1])):
        runner = make_runner(toy_cfg, load_options={'prefer_ema': prefer_ema})
        runner.test()
        assert torch.equal(runner.model.state_dict()['net.0.weight'], weights['net.0.weight'])
        assert next(h for h in runner.hooks if isinstance(h, EMAHook)).ema_model is None


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'evaluate_on_ema': False}, 'evaluate_on_ema or evaluate_on_origin'),
        ({'begin_iter': 1, 'begin_epoch': 1}, 'begin_iter'),
    ],
)
def test_refuses_contradictions(kwargs, message):
    with pytest.raises((ValueError, AssertionError), match=message):
        EMAHook(**kwargs)


def test_refuses_a_decay_in_place_of_a_momentum(toy_cfg, make_runner):
    toy_cfg['custom_hooks'] = [{'type': 'evamm.EMAHook', 'momentum': 1.0}]
    with pytest.raises(ValueError, match=r'momentum must be in \(0, 1\), found 1.0'):
        make_runner(toy_cfg).train()
