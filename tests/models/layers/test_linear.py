"""The fast product against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from evamm.models.layers import linear as module
from evamm.models.layers.linear import Linear, linear

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason='this PyTorch has no oneDNN'
)


@pytest.fixture
def onednn(monkeypatch):
    """Takes the oneDNN path on every processor and for every size."""
    monkeypatch.setattr(module, '_USE_ONEDNN', True)
    monkeypatch.setattr(module, '_MIN_PRODUCT', 1)


def check(found, expected, tolerance=2e-6):
    assert found.shape == expected.shape
    assert (found - expected).norm() <= tolerance * expected.norm()


@needs_onednn
@pytest.mark.parametrize('shape', [(2, 257, 48), (3, 48), (48,), (2, 3, 4, 48), (0, 5, 48)])
@pytest.mark.parametrize('with_bias', [True, False])
def test_output_and_gradients(onednn, shape, with_bias):
    x = torch.randn(*shape, requires_grad=True)
    weight = torch.randn(7, 48, requires_grad=True)
    bias = torch.randn(7, requires_grad=True) if with_bias else None
    inputs = [value for value in (x, weight, bias) if value is not None]
    expected, found = F.linear(x, weight, bias), linear(x, weight, bias)
    check(found, expected)
    with torch.no_grad():
        check(linear(x, weight, bias), expected)
    seed = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, inputs, seed)
    for grad, reference in zip(torch.autograd.grad(found, inputs, seed), wanted, strict=True):
        check(grad, reference)


@needs_onednn
def test_second_derivatives(onednn):
    x, weight = torch.randn(5, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)

    def penalty(function):
        grads = torch.autograd.grad(
            function(x, weight).square().sum(), (x, weight), create_graph=True
        )
        return torch.autograd.grad(sum(grad.square().sum() for grad in grads), (x, weight))

    for grad, reference in zip(penalty(linear), penalty(F.linear), strict=True):
        check(grad, reference, 1e-5)


@needs_onednn
def test_strided_inputs(onednn):
    weight = torch.randn(12, 48)[::2]
    for x in (torch.randn(48, 10).t(), torch.randn(1, 48).expand(10, 48)):
        check(linear(x, weight), F.linear(x, weight))


@needs_onednn
def test_only_the_cases_it_was_made_for_leave_pytorch(onednn, monkeypatch):
    used = []
    original = module._onednn
    monkeypatch.setattr(module, '_onednn', lambda *args: used.append(1) or original(*args))
    layer = Linear(8, 4)
    layer(torch.randn(2, 8))
    assert used
    used.clear()
    layer.double()(torch.randn(2, 8, dtype=torch.float64))
    layer.float()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert layer(torch.randn(2, 8)).dtype == torch.bfloat16
    torch.compile(layer, backend='eager', fullgraph=True)(torch.randn(2, 8))
    torch.export.export(layer, (torch.randn(2, 8),))
    layer.to('meta')(torch.empty(2, 8, device='meta'))
    monkeypatch.setattr(module, '_MIN_PRODUCT', 2 * 8 * 4 + 1)
    Linear(8, 4)(torch.randn(2, 8))
    assert not used


@needs_onednn
def test_flops_are_counted(onednn):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Linear(8, 4, bias=False)(torch.randn(3, 5, 8))
    assert counter.get_total_flops() == 2 * 3 * 5 * 8 * 4
