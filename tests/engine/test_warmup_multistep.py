import copy
import importlib

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

import evamm.registry  # noqa: F401
from evamm.engine.schedulers import WarmupMultiStepLR


def wrapper(lr_scales, lr=1.0, accumulation=1):
    groups = [{'params': [torch.nn.Parameter(torch.zeros(1))], 'lr': lr * s} for s in lr_scales]
    return OptimWrapper(torch.optim.SGD(groups, lr=lr), accumulative_counts=accumulation)


def curve(optim_wrapper, iterations, scheduler=None, **kwargs):
    """Rates of every group at every iteration, [iterations, groups]."""
    if scheduler is None:
        cfg = dict(type='evamm.WarmupMultiStepLR', **kwargs)
        scheduler = PARAM_SCHEDULERS.build(cfg, default_args={'optimizer': optim_wrapper})
    rates = []
    for _ in range(iterations):
        rates.append([group['lr'] for group in optim_wrapper.optimizer.param_groups])
        scheduler.step()
    return np.array(rates)


def test_equals_the_official_scheduler():
    """Values of detectron2's WarmupParamScheduler over fvcore's MultiStepParamScheduler."""
    settings = dict(warmup_steps=500, milestones=[40_000, 44_999], end=45_000)
    rates = curve(wrapper([1.0, 0.9**41], 2.5e-5), 45_000, **settings)
    shares = {0: 0.001, 1: 0.002998, 250: 0.5005, 499: 0.998002, 500: 1.0}
    shares |= {39_999: 1.0, 40_000: 0.1, 44_998: 0.1, 44_999: 0.01}
    for step, share in shares.items():
        np.testing.assert_allclose(
            rates[step], [2.5e-5 * share, 2.5e-5 * 0.9**41 * share], rtol=1e-12
        )


def test_without_milestones_it_stays():
    rates = curve(wrapper([1.0]), 40_000, warmup_steps=400, end=40_000)[:, 0]
    assert rates[0] == 0.001 and rates[399] < 1
    assert (rates[400:] == 1).all()


@pytest.mark.parametrize('accumulation', [2, 5])
def test_holds_each_value_for_an_accumulation_window(accumulation):
    settings = dict(warmup_steps=4, milestones=[10, 15])
    expected = curve(wrapper([1.0]), 20, end=20, **settings)
    end = 20 * accumulation
    rates = curve(wrapper([1.0], accumulation=accumulation), end, end=end, **settings)
    for window in range(accumulation):
        assert np.array_equal(rates[window::accumulation], expected)


def test_resumes_in_the_middle_and_goes_on_along_a_longer_curve():
    first, second = wrapper([1.0]), wrapper([1.0])
    started = WarmupMultiStepLR(first, warmup_steps=4, milestones=[10], end=12)
    rates = curve(first, 7, started)
    resumed = WarmupMultiStepLR(second, warmup_steps=4, milestones=[10, 20], end=30)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed.load_state_dict(started.state_dict())
    rates = np.concatenate((rates, curve(second, 23, resumed)))
    expected = curve(wrapper([1.0]), 30, warmup_steps=4, milestones=[10, 20], end=30)
    assert np.array_equal(rates, expected)


def test_says_when_a_milestone_lies_after_the_end(monkeypatch):
    said = []
    module = importlib.import_module('evamm.engine.schedulers.warmup_multistep')
    monkeypatch.setattr(module, 'print_log', lambda text, _: said.append(text))
    settings = dict(warmup_steps=2, milestones=[8], end=18)
    WarmupMultiStepLR(wrapper([1.0], accumulation=2), **settings)
    assert not said
    WarmupMultiStepLR(wrapper([1.0], accumulation=3), **settings)
    assert len(said) == 1 and '[8]: the run ends after 6 optimizer steps (18 iter' in said[0]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'by_epoch': True}, 'set by_epoch=False'),
        ({'warmup_steps': -1}, 'must be 0 or more, found -1'),
        ({'milestones': [20, 10]}, r'must rise .* found \[20, 10\]'),
        ({'warmup_steps': 10, 'milestones': [10]}, 'after the warm-up of 10 steps'),
    ],
)
def test_refuses_what_cannot_work(kwargs, message):
    with pytest.raises(ValueError, match=message):
        WarmupMultiStepLR(wrapper([1.0]), **kwargs)
