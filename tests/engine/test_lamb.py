"""LAMB and LARS against their formulas in float64, written out tensor by tensor."""

import copy

import numpy as np
import pytest
import torch
from exact_runs import Crash, assert_same_end, scramble
from mmengine.registry import OPTIMIZERS
from torch import nn

import evamm.registry  # noqa: F401
from evamm.engine import LAMB, LARS, AmpOptimWrapper, LayerDecayOptimWrapperConstructor
from evamm.engine.errors import ConfigError

SHAPES = {'weight': (5, 7), 'zero': (4, 3), 'bias': (6,), 'scale': (), 'kernel': (2, 3, 2, 2)}


def make_params(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: nn.Parameter(
            torch.zeros(shape) if name == 'zero' else torch.randn(shape, generator=generator)
        )
        for name, shape in SHAPES.items()
    }


def draw_grads(step):
    """Gradients of very different sizes, one of them all zero in the first step."""
    rng = np.random.default_rng(step)
    sizes = {'weight': 1e-3, 'zero': 1.0, 'bias': 50.0, 'scale': 1e-6, 'kernel': float(step > 0)}
    return {name: rng.normal(size=shape) * sizes[name] for name, shape in SHAPES.items()}


def give(params, grads):
    for name, param in params.items():
        param.grad = torch.as_tensor(np.asarray(grads[name]), dtype=param.dtype)


def lamb_formula(weight, grads, *, lr, betas, eps, decay, bounds, correct):
    """Weight after all steps, in float64."""
    m = v = np.zeros_like(weight)
    ratios = []
    for step, grad in enumerate(grads, 1):
        m = betas[0] * m + (1 - betas[0]) * grad
        v = betas[1] * v + (1 - betas[1]) * grad**2
        update = m / (np.sqrt(v) + eps) + decay * weight
        sizes = np.linalg.norm(weight.ravel()), np.linalg.norm(update.ravel())
        ratio = np.clip(sizes[0] / sizes[1], *bounds) if all(sizes) else 1.0
        ratios.append(ratio)
        size = lr * np.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step) if correct else lr
        weight = weight - size * ratio * update
    return weight, ratios


@pytest.mark.parametrize('decay', [0.0, 0.05])
@pytest.mark.parametrize('correct', [True, False])
@pytest.mark.parametrize('bounds', [(0.01, 10.0), (0.2, 0.5)])
def test_lamb_is_the_formula(decay, correct, bounds):
    params = make_params()
    start = {name: param.detach().double().numpy().copy() for name, param in params.items()}
    optimizer = LAMB(
        params.values(),
        lr=0.02,
        betas=(0.9, 0.99),
        eps=1e-6,
        weight_decay=decay,
        bias_correction=correct,
        min_coeff=bounds[0],
        max_coeff=bounds[1],
    )
    grads = [draw_grads(step) for step in range(8)]
    for grad in grads:
        give(params, grad)
        optimizer.step()
    every_ratio = []
    for name, param in params.items():
        expected, ratios = lamb_formula(
            start[name],
            [grad[name] for grad in grads],
            lr=0.02,
            betas=(0.9, 0.99),
            eps=1e-6,
            decay=decay,
            bounds=bounds,
            correct=correct,
        )
        np.testing.assert_allclose(param.detach(), expected, rtol=2e-5, atol=1e-6, err_msg=name)
        every_ratio += ratios
    # Undefined, bounded and (with the official bounds) free ratios have occurred.
    assert 1.0 in every_ratio and set(bounds) & set(every_ratio)
    if bounds == (0.01, 10.0):
        assert any(0.01 < ratio < 10 and ratio != 1.0 for ratio in every_ratio)


def test_lamb_is_exact_in_float64():
    params = {name: nn.Parameter(param.double()) for name, param in make_params().items()}
    start = {name: param.detach().numpy().copy() for name, param in params.items()}
    optimizer = LAMB(params.values(), lr=0.02, weight_decay=0.05)
    grads = [draw_grads(step) for step in range(5)]
    for grad in grads:
        give(params, grad)
        optimizer.step()
    options = dict(lr=0.02, betas=(0.9, 0.999), eps=1e-8, decay=0.05, bounds=(0.01, 10))
    for name, param in params.items():
        steps = [grad[name] for grad in grads]
        expected, _ = lamb_formula(start[name], steps, correct=True, **options)
        np.testing.assert_allclose(param.detach(), expected, rtol=1e-12, err_msg=name)


def test_defaults_are_those_of_the_official_runs():
    defaults = LAMB([nn.Parameter(torch.ones(2))]).defaults
    assert defaults == dict(
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        bias_correction=True,
        min_coeff=0.01,
        max_coeff=10.0,
    )


def test_it_is_not_the_one_of_mmpretrain():
    """Which clips to norm 1 (hence not the same step) and cannot step a scalar (logit_scale)."""
    from mmpretrain.engine.optimizers import Lamb

    results = []
    for cls in (LAMB, Lamb):
        param = nn.Parameter(torch.ones(3, 3))
        optimizer = cls([param], lr=0.1, weight_decay=0.05, eps=1e-8)
        for size in (1.0, 100.0):
            param.grad = torch.full((3, 3), size)
            optimizer.step()
        results.append(param.detach())
    assert (results[0] - results[1]).abs().max() > 1e-3
    assert OPTIMIZERS.get('evamm.LAMB') is LAMB
    scale = nn.Parameter(torch.tensor(2.0))
    scale.grad = torch.tensor(1.0)
    with pytest.raises(RuntimeError, match='broadcast'):
        Lamb([scale]).step()
    LAMB([scale]).step()
    assert scale < 2


def lars_formula(weight, grads, *, lr, momentum, decay, trust):
    buffer = np.zeros_like(weight)
    for grad in grads:
        if weight.ndim > 1:
            grad = grad + decay * weight
            sizes = np.linalg.norm(weight.ravel()), np.linalg.norm(grad.ravel())
            grad = grad * (trust * sizes[0] / sizes[1] if all(sizes) else 1.0)
        buffer = momentum * buffer + grad
        weight = weight - lr(grads) * buffer
    return weight


@pytest.mark.parametrize('decay', [0.0, 0.1])
def test_lars_is_the_formula(decay):
    params = make_params()
    start = {name: param.detach().double().numpy().copy() for name, param in params.items()}
    optimizer = LARS(params.values(), lr=0.5, weight_decay=decay)
    assert optimizer.defaults['momentum'] == 0.9
    assert optimizer.defaults['trust_coefficient'] == 0.001
    grads = [draw_grads(step) for step in range(4)]
    for grad in grads:
        give(params, grad)
        optimizer.step()
    for name, param in params.items():
        steps = [grad[name] for grad in grads]
        options = dict(lr=lambda _: 0.5, momentum=0.9, decay=decay, trust=0.001)
        expected = lars_formula(start[name], steps, **options)
        np.testing.assert_allclose(param.detach(), expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_lars_keeps_the_learning_rate_out_of_the_buffer():
    """After the rate falls to a tenth, the momentum of earlier steps counts a tenth too."""
    param = nn.Parameter(torch.ones(3))
    optimizer = LARS([param], lr=1.0)
    param.grad = torch.ones(3)
    optimizer.step()
    optimizer.param_groups[0]['lr'] = 0.1
    param.grad = torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(param.detach(), torch.full((3,), 1 - 1.0 - 0.1 * 0.9))


@pytest.mark.parametrize('cls', [LAMB, LARS])
def test_parameters_without_gradient_stay_and_keep_their_own_count(cls):
    first, second = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    alone = nn.Parameter(torch.ones(2, 2))
    together, reference = cls([first, second], lr=0.1), cls([alone], lr=0.1)
    for step in range(4):
        grad = torch.full((2, 2), 1.0 + step)
        first.grad, second.grad, alone.grad = grad, grad if step >= 2 else None, None
        together.step()
        if step < 2:
            assert torch.equal(second.detach(), torch.ones(2, 2))
        else:
            alone.grad = grad
            reference.step()
    torch.testing.assert_close(second, alone)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize('cls', [LAMB, LARS])
def test_saved_and_loaded_it_goes_on_with_the_same_bits(cls, tmp_path):
    whole, stopped = make_params(), make_params()
    reference, optimizer = cls(whole.values(), lr=0.02), cls(stopped.values(), lr=0.02)
    for step in range(6):
        if step == 3:
            torch.save(optimizer.state_dict(), tmp_path / 'state.pth')
            optimizer = cls(stopped.values(), lr=7.0)
            optimizer.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
        give(whole, draw_grads(step))
        give(stopped, draw_grads(step))
        reference.step()
        optimizer.step()
    for name in SHAPES:
        assert torch.equal(whole[name], stopped[name]), name


@pytest.mark.parametrize('cls', [LAMB, LARS])
def test_nothing_waits_for_the_device(cls, monkeypatch):
    """On CUDA these calls would stop the CPU until all kernels are done."""
    params = make_params()
    optimizer = cls(params.values(), lr=0.02)
    give(params, draw_grads(1))
    optimizer.step()
    real = torch.Tensor.__int__

    def only_counts(tensor):
        assert tensor.device.type == 'cpu' and tensor.ndim == 0 and tensor == real(tensor)
        return real(tensor)

    def refuse(*args):
        raise AssertionError('waits for the device')

    for name in ('item', 'tolist', '__float__', 'cpu', 'numpy'):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    monkeypatch.setattr(torch.Tensor, '__int__', only_counts)
    optimizer.step()


def test_clipping_of_the_wrapper_comes_first():
    params = make_params()
    wrapper = AmpOptimWrapper(LARS(params.values(), lr=1.0), clip_grad=dict(max_norm=5.0))
    before = {name: param.detach().clone() for name, param in params.items()}
    loss = sum((param * 100).sum() for param in params.values())
    wrapper.update_params(loss)
    norm = 100 * sum(param.numel() for param in params.values()) ** 0.5
    assert float(wrapper.grad_norm) == pytest.approx(norm, rel=1e-5)
    moved = before['bias'] - params['bias'].detach()  # a vector: exactly the clipped gradient
    torch.testing.assert_close(moved, torch.full((6,), 100 * 5.0 / norm), rtol=1e-5, atol=1e-7)


def test_a_run_with_lamb_goes_on_exactly_where_it_stopped(toy_cfg, make_runner, tmp_path):
    toy_cfg['optim_wrapper'].update(
        optimizer=dict(type='evamm.LAMB', lr=1e-2, weight_decay=0.05), clip_grad=dict(max_norm=5.0)
    )
    toy_cfg['default_hooks']['checkpoint'].update(by_epoch=False, interval=1)
    make_runner(toy_cfg, work_dir=str(tmp_path / 'whole')).train()
    crash = [*toy_cfg['custom_hooks'], dict(type='CrashHook', iteration=8, where='train')]
    with pytest.raises(Crash):
        make_runner(toy_cfg, custom_hooks=crash).train()
    scramble()
    make_runner(toy_cfg, resume=True).train()
    assert_same_end(tmp_path / 'whole' / 'iter_12.pth', tmp_path / 'run' / 'iter_12.pth')


@pytest.mark.parametrize(
    ('cls', 'options', 'message'),
    [
        (LAMB, dict(lr=-1), r'LAMB: optimizer\.lr must be 0 or more, found -1'),
        (LAMB, dict(betas=(0.9, 1.0)), r'optimizer\.betas must be two values in \[0, 1\)'),
        (LAMB, dict(min_coeff=3, max_coeff=2), 'min_coeff must lie between 0 and max_coeff'),
        (LARS, dict(lr=1, momentum=-0.9), r'LARS: optimizer\.momentum must be 0 or more'),
    ],
)
def test_bad_values_are_named(cls, options, message):
    with pytest.raises(ConfigError, match=message):
        cls([nn.Parameter(torch.ones(2))], **options)


@pytest.mark.parametrize('cls', [LAMB, LARS])
def test_sparse_gradients_are_refused(cls):
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = cls(table.parameters(), lr=0.1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ConfigError, match=r'shape \(5, 3\) with sparse=False'):
        optimizer.step()


def test_the_layer_decay_constructor_builds_it():
    model = nn.Module()
    model.head = nn.Linear(3, 2)
    model.get_layer_depth = lambda name, prefix='': (1, 2)
    cfg = dict(optimizer=dict(type='evamm.LAMB', lr=5e-4, weight_decay=0.05))
    optimizer = LayerDecayOptimWrapperConstructor(copy.deepcopy(cfg))(model).optimizer
    assert type(optimizer) is LAMB
    assert [group['weight_decay'] for group in optimizer.param_groups] == [0.05, 0.0]
