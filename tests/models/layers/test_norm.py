"""LayerNorm over the channels of a map, alone and through mmcv's ``norm_cfg``."""

import pytest
import torch
from mmcv.cnn import ConvModule

import evamm.models  # noqa: F401  registers the norm
from evamm.models.layers import LayerNorm2d


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_equals_the_formula(memory_format):
    torch.manual_seed(0)
    norm = LayerNorm2d(5).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = 1e-3 * torch.randn(2, 5, 3, 4, dtype=torch.float64)  # so small that eps matters
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).square().mean(1, keepdim=True)
    expected = (x - mean) / (variance + 1e-6).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x.contiguous(memory_format=memory_format)), expected)


def test_is_a_norm_of_mmcv():
    module = ConvModule(3, 4, 1, norm_cfg=dict(type='evamm.LayerNorm2d', eps=1e-6))
    assert isinstance(module.ln, LayerNorm2d) and module.ln.eps == 1e-6
    assert module.conv.bias is None
    assert module(torch.zeros(1, 3, 2, 2)).shape == (1, 4, 2, 2)
