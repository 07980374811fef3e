import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

import evamm.registry  # noqa: F401
from evamm.engine import AmpOptimWrapper

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')


def model_and_data(device='cpu'):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).to(device)
    return model, torch.randn(6, 8, device=device), torch.randint(0, 4, (6,), device=device)


def train(model, wrapper, inputs, labels, steps=4):
    dtypes = set()
    for _ in range(steps):
        with wrapper.optim_context(model):
            logits = model(inputs)
            dtypes.add(logits.dtype)
            loss = nn.functional.cross_entropy(logits.float(), labels)
        wrapper.update_params(loss)
    return dtypes


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_cpu_stays_float32_and_equals_the_plain_wrapper(dtype):
    model, inputs, labels = model_and_data()
    reference = copy.deepcopy(model)
    wrapper = AmpOptimWrapper(
        torch.optim.AdamW(model.parameters(), lr=0.1),
        dtype=dtype,
        accumulative_counts=2,
        clip_grad={'max_norm': 0.1},
    )
    plain = OptimWrapper(
        torch.optim.AdamW(reference.parameters(), lr=0.1),
        accumulative_counts=2,
        clip_grad={'max_norm': 0.1},
    )
    assert train(model, wrapper, inputs, labels) == {torch.float32}
    train(reference, plain, inputs, labels)
    for param, expected in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.equal(param, expected)
    assert not wrapper.loss_scaler.is_enabled()
    assert 'loss_scaler' not in wrapper.state_dict()


@needs_cuda
@pytest.mark.parametrize(('dtype', 'scales'), [('bfloat16', False), ('float16', True)])
def test_cuda_casts_and_scales_float16_only(dtype, scales):
    model, inputs, labels = model_and_data('cuda')
    wrapper = AmpOptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.1), dtype=dtype)
    before = copy.deepcopy(model.state_dict())
    assert train(model, wrapper, inputs, labels) == {getattr(torch, dtype)}
    assert wrapper.loss_scaler.is_enabled() == scales
    assert ('loss_scaler' in wrapper.state_dict()) == scales
    assert not torch.equal(before['0.weight'], model[0].weight)
    assert model[0].weight.dtype == torch.float32


@needs_cuda
def test_cuda_float16_scale_survives_a_resume():
    model, inputs, labels = model_and_data('cuda')
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    wrapper = AmpOptimWrapper(optimizer, dtype='float16', loss_scale={'init_scale': 1024.0})
    train(model, wrapper, inputs, labels)
    other = AmpOptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.1), dtype='float16')
    other.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    assert other.loss_scaler.get_scale() == 1024.0


def test_takes_up_a_state_with_a_scaler_it_has_no_use_for():
    model, inputs, labels = model_and_data()
    wrapper = AmpOptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.1))
    train(model, wrapper, inputs, labels)
    state = {**wrapper.state_dict(), 'loss_scaler': {'scale': 2.0}}
    other = AmpOptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.1))
    other.load_state_dict(state)
    assert 'loss_scaler' in state  # the caller's dict is not eaten
    assert other.optimizer.state_dict()['state'][0]['step'] == 4


def test_is_built_by_name():
    model, _, _ = model_and_data()
    wrapper = OPTIM_WRAPPERS.build(
        {'type': 'evamm.AmpOptimWrapper', 'dtype': 'float16', 'loss_scale': 512.0},
        default_args={'optimizer': torch.optim.SGD(model.parameters(), lr=0.1)},
    )
    assert wrapper.cast_dtype is torch.float16


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'dtype': 'float32'}, "one of .'bfloat16', 'float16'"),
        ({'loss_scale': 'static'}, 'loss_scale must be'),
    ],
)
def test_refuses_unknown_precision(kwargs, message):
    model, _, _ = model_and_data()
    with pytest.raises(ValueError, match=message):
        AmpOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), **kwargs)
