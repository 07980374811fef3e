import copy
import math
import warnings

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

import evamm.registry  # noqa: F401
from evamm.engine.schedulers import WarmupCosineLR

# (run, steps per epoch at its batch size, lr, min lr, epochs, warm-up epochs) of the official table
RUNS = [
    ('EVA-01-g IN-21K', 3462, 1e-4, 1e-6, 60, 15),
    ('EVA-01-g IN-1K 336', 2502, 3e-5, 0.0, 10, 2),
    ('EVA-L IN-1K', 1251, 2e-4, 0.0, 50, 5),
    ('EVA-02-Ti IN-1K', 1251, 2e-4, 0.0, 100, 5),
    ('EVA-02-B IN-1K', 1251, 1e-4, 0.0, 30, 3),
    ('EVA-02-B IN-21K', 6925, 3e-4, 0.0, 40, 1),
    ('EVA-02-B IN-1K after 21K', 2502, 5e-5, 0.0, 15, 2),
]


def official_curve(base, final, epochs, steps_per_epoch, warmup_epochs):
    """The schedule as the official utils.py describes it, step by step."""
    warmup_steps = warmup_epochs * steps_per_epoch
    values = list(np.linspace(0, base, warmup_steps)) if warmup_epochs > 0 else []
    remaining = epochs * steps_per_epoch - warmup_steps
    for i in range(remaining):
        values.append(final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / remaining)))
    return values


def wrapper(lr_scales, lr, accumulation=1):
    groups = [
        {'params': [torch.nn.Parameter(torch.zeros(1))], 'lr': lr * scale, 'lr_scale': scale}
        for scale in lr_scales
    ]
    optimizer = torch.optim.SGD(groups, lr=lr)
    return OptimWrapper(optimizer, accumulative_counts=accumulation)


def build(optim_wrapper, epoch_length, **kwargs):
    cfg = {'type': 'evamm.WarmupCosineLR', 'convert_to_iter_based': True, **kwargs}
    return PARAM_SCHEDULERS.build(
        cfg, default_args={'optimizer': optim_wrapper, 'epoch_length': epoch_length}
    )


def curve(optim_wrapper, scheduler, iterations):
    """Rates of every group at every iteration, [iterations, groups]."""
    rates = []
    for _ in range(iterations):
        rates.append([group['lr'] for group in optim_wrapper.optimizer.param_groups])
        scheduler.step()
    return np.array(rates)


@pytest.mark.parametrize('run', RUNS, ids=lambda run: run[0])
def test_equals_the_official_values_of_the_released_runs(run):
    _, steps_per_epoch, lr, min_lr, epochs, warmup = run
    # The whole curve in a tenth of the steps, and the exact steps at its corners.
    optim_wrapper = wrapper([1.0, 0.8**13], lr)
    scheduler = build(optim_wrapper, steps_per_epoch, warmup=warmup, eta_min=min_lr, end=epochs)
    expected = official_curve(lr, min_lr, epochs, steps_per_epoch, warmup)
    corner = warmup * steps_per_epoch
    steps = {0, 1, corner - 1, corner, corner + 1, len(expected) - 1}
    for step in sorted(steps | set(range(0, len(expected), 997))):
        scheduler._global_step = step - 1
        scheduler.step()
        first, second = (group['lr'] for group in optim_wrapper.optimizer.param_groups)
        assert first == pytest.approx(expected[step], rel=1e-12, abs=1e-20)
        assert second == pytest.approx(expected[step] * 0.8**13, rel=1e-12, abs=1e-20)


def test_corners():
    optim_wrapper = wrapper([1.0], 1.0)
    rates = curve(optim_wrapper, build(optim_wrapper, 10, warmup=2, end=5), 50)[:, 0]
    assert rates[0] == 0
    assert rates[19] == rates[20] == 1
    assert rates[18] < 1 and rates[21] < 1
    assert 0 < rates[49] < 0.01


@pytest.mark.parametrize('accumulation', [2, 5])
def test_holds_each_value_for_an_accumulation_window(accumulation):
    """Over a longer loader with more accumulation: the same value at every optimizer step."""
    steps_per_epoch, epochs, warmup = 10, 6, 2
    optim_wrapper = wrapper([0.5, 1.0], 0.3, accumulation)
    scheduler = build(
        optim_wrapper, steps_per_epoch * accumulation, warmup=warmup, eta_min=0.01, end=epochs
    )
    rates = curve(optim_wrapper, scheduler, epochs * steps_per_epoch * accumulation)
    expected = official_curve(0.3, 0.01, epochs, steps_per_epoch, warmup)
    for window in range(accumulation):
        np.testing.assert_allclose(rates[window::accumulation, 1], expected, rtol=1e-12)
        np.testing.assert_allclose(
            rates[window::accumulation, 0], np.array(expected) * 0.5, rtol=1e-12
        )


def test_a_short_last_window_keeps_its_own_step():
    optim_wrapper = wrapper([1.0], 1.0, accumulation=3)
    rates = curve(optim_wrapper, build(optim_wrapper, 10, end=1), 10)[:, 0]
    np.testing.assert_allclose(
        rates[[0, 3, 6, 9]], [0.5 * (1 + math.cos(math.pi * i / 4)) for i in range(4)]
    )


def test_does_not_warn_while_gradients_accumulate():
    optim_wrapper = wrapper([1.0], 1.0, accumulation=4)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        curve(optim_wrapper, build(optim_wrapper, 8, end=1), 8)


def test_resumes_in_the_middle():
    optim_wrapper = wrapper([1.0], 1.0)
    scheduler = build(optim_wrapper, 10, warmup=1, end=3)
    rates = curve(optim_wrapper, scheduler, 30)
    first = wrapper([1.0], 1.0)
    started = build(first, 10, warmup=1, end=3)
    curve(first, started, 17)
    second = wrapper([1.0], 1.0)
    resumed = build(second, 10, warmup=1, end=3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed.load_state_dict(started.state_dict())
    assert np.array_equal(curve(second, resumed, 13), rates[17:])


def test_a_trial_run_shorter_than_the_warm_up_ends_on_its_way_up():
    optim_wrapper = wrapper([1.0], 1.0)
    rates = curve(optim_wrapper, build(optim_wrapper, 10, warmup=5, end=1), 10)[:, 0]
    np.testing.assert_allclose(rates, np.arange(10) / 49)


def test_a_longer_training_continues_on_the_longer_curve():
    optim_wrapper = wrapper([1.0], 1.0)
    rates = curve(optim_wrapper, build(optim_wrapper, 10, warmup=1, end=5), 50)
    first = wrapper([1.0], 1.0)
    ended = build(first, 10, warmup=1, end=3)
    curve(first, ended, 30)
    second = wrapper([1.0], 1.0)
    resumed = build(second, 10, warmup=1, end=5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed.load_state_dict(ended.state_dict())
    assert np.array_equal(curve(second, resumed, 20), rates[30:])


def test_begins_where_it_is_told():
    optim_wrapper = wrapper([1.0], 1.0)
    scheduler = WarmupCosineLR(optim_wrapper, warmup=2, begin=3, end=13, by_epoch=False)
    rates = curve(optim_wrapper, scheduler, 13)[:, 0]
    assert list(rates[:6]) == [1, 1, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'warmup': 1, 'end': 5}, 'convert_to_iter_based=True'),
        ({'warmup': -1, 'end': 5, 'by_epoch': False}, 'warmup must be 0 or more, found -1'),
    ],
)
def test_refuses_what_cannot_work(kwargs, message):
    with pytest.raises(ValueError, match=message):
        WarmupCosineLR(wrapper([1.0], 1.0), **kwargs)


def test_without_from_zero_it_is_the_curve_of_image_text_training():
    """rei/training/scheduler.py of EVA-CLIP: the first step has a rate, the peak comes in time."""
    optim_wrapper = wrapper([1.0, 0.75**13], 2e-4)
    kwargs = dict(warmup=2000, end=61_036, by_epoch=False, from_zero=False)
    cfg = dict(type='evamm.WarmupCosineLR', **kwargs)
    scheduler = PARAM_SCHEDULERS.build(cfg, default_args={'optimizer': optim_wrapper})
    rates = curve(optim_wrapper, scheduler, 61_036)
    # Of a run of the official function.
    official = {
        0: 1e-7,
        1: 2e-7,
        999: 1e-4,
        1999: 2e-4,
        2000: 2e-4,
        2001: 1.9999999985835e-4,
        31518: 1e-4,
        61035: 1.416e-13,
    }
    for step, rate in official.items():
        assert rates[step, 0] == pytest.approx(rate, rel=2e-4 if step == 61035 else 1e-9), step
    np.testing.assert_allclose(rates[:, 1], rates[:, 0] * 0.75**13, rtol=1e-12)


def test_without_from_zero_epochs_convert_too():
    optim_wrapper = wrapper([1.0], 1.0)
    scheduler = build(optim_wrapper, 4, warmup=1, end=3, from_zero=False)
    rates = curve(optim_wrapper, scheduler, 5)[:, 0]
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1.0, 1.0])
