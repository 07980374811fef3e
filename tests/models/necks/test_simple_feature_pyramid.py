"""The pyramid: strides, names, levels written out, arithmetic."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict

from evamm.models import SimpleFeaturePyramid
from evamm.registry import MODELS

NAMES = {
    'levels.0.resize.0.weight': (16, 8, 2, 2),
    'levels.0.resize.0.bias': (8,),
    'levels.0.resize.1.weight': (8,),
    'levels.0.resize.1.bias': (8,),
    'levels.0.resize.3.weight': (8, 4, 2, 2),
    'levels.0.resize.3.bias': (4,),
    'levels.1.resize.0.weight': (16, 8, 2, 2),
    'levels.1.resize.0.bias': (8,),
}
for level, channels in enumerate((4, 8, 16, 16)):
    for part, shape in (('lateral', (6, channels, 1, 1)), ('output', (6, 6, 3, 3))):
        NAMES[f'levels.{level}.{part}.conv.weight'] = shape
        NAMES[f'levels.{level}.{part}.norm.weight'] = (6,)
        NAMES[f'levels.{level}.{part}.norm.bias'] = (6,)


@torch.no_grad()
def build():
    torch.manual_seed(0)
    neck = MODELS.build(
        ConfigDict(type='evamm.SimpleFeaturePyramid', in_channels=16, out_channels=6)
    )
    for param in neck.parameters():  # norms of ones and zeros would hide a swap
        param.copy_(torch.randn_like(param) * 0.3)
    return neck


def norm(x, weight, bias):
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    return (x - mean) / (var + 1e-6).sqrt() * weight[:, None, None] + bias[:, None, None]


def test_names_and_shapes():
    assert {name: tuple(p.shape) for name, p in build().state_dict().items()} == NAMES


def test_equals_the_layers_written_out():
    neck, x = build().double(), torch.randn(2, 16, 6, 4, dtype=torch.float64)
    p = neck.state_dict()

    def weights(name):
        return p[f'levels.{name}.weight'], p[f'levels.{name}.bias']

    up = F.conv_transpose2d(x, *weights('0.resize.0'), stride=2)
    up = F.gelu(norm(up, *weights('0.resize.1')))
    resized = [
        F.conv_transpose2d(up, *weights('0.resize.3'), stride=2),
        F.conv_transpose2d(x, *weights('1.resize.0'), stride=2),
        x,
        F.max_pool2d(x, 2),
    ]
    expected = []
    for level, y in enumerate(resized):
        y = F.conv2d(y, p[f'levels.{level}.lateral.conv.weight'])
        y = norm(y, *weights(f'{level}.lateral.norm'))
        y = F.conv2d(y, p[f'levels.{level}.output.conv.weight'], padding=1)
        expected.append(norm(y, *weights(f'{level}.output.norm')))
    expected.append(expected[-1][:, :, ::2, ::2])
    found = neck((x,))
    assert [tuple(y.shape[2:]) for y in found] == [(24, 16), (12, 8), (6, 4), (3, 2), (2, 1)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_channels_stay_next_to_each_other_within_a_level_and_not_in_the_maps():
    """A transformer's map is not copied; compiled operators of mmcv need contiguous ones."""
    tokens = torch.randn(2, 24, 16)
    image = tokens.transpose(1, 2).unflatten(2, (6, 4))
    neck = build()
    for level in neck.levels:
        assert level(image).is_contiguous(memory_format=torch.channels_last)
    assert all(y.is_contiguous() for y in neck((image,)))


def test_takes_one_map():
    with pytest.raises(ValueError, match='takes one map, got 2'):
        build()((torch.zeros(1, 16, 4, 4),) * 2)
    with pytest.raises(ValueError, match='in_channels=18'):
        SimpleFeaturePyramid(18)
