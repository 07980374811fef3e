"""The released architectures are exactly the official ones."""

import pytest
import torch

from evamm.models.backbones import EVAViT
from evamm.models.variants import ARCHS, resolve_arch

# Parameters of the encoder with one final LayerNorm and no head. Official training logs give the
# counts with heads; these are the same numbers less head and mask token.
ENCODER_PARAMS = [
    ('eva-giant', 14, 224, 1_011_146_112),
    ('eva-large', 14, 196, 303_117_312),
    ('eva02-tiny', 14, 224, 5_502_144),
    ('eva02-small', 14, 224, 21_621_120),
    ('eva02-base', 14, 224, 85_758_720),
    ('eva02-base', 16, 224, 85_850_880),
    ('eva02-large', 14, 224, 303_268_800),
    ('eva02-large', 16, 224, 303_391_680),
]
# (arch, patch, image size, classes or joint CLIP width, parameters with the linear head)
HEAD_PARAMS = [
    ('eva-giant', 14, 224, 21841, 1_041_920_081),
    ('eva-giant', 14, 224, 1000, 1_012_555_112),
    ('eva-giant', 14, 336, 1000, 1_013_005_672),
    ('eva-giant', 14, 560, 1000, 1_014_447_464),
    ('eva-large', 14, 196, 1000, 304_142_312),
    ('eva-large', 14, 336, 1000, 304_531_432),
    ('eva02-tiny', 14, 336, 1000, 5_756_584),
    ('eva02-small', 14, 336, 1000, 22_129_000),
    ('eva02-base', 14, 448, 1000, 87_117_544),
    ('eva02-large', 14, 448, 1000, 305_080_232),
    ('eva-clip-giant', 14, 224, 1024, 1_012_588_928),
    ('eva02-clip-base', 16, 224, 512, 86_263_040),
    ('eva02-clip-large', 14, 224, 768, 304_105_152),
    ('eva02-clip-large', 14, 336, 768, 304_432_832),
    ('eva02-clip-enormous', 14, 224, 1024, 4_350_556_928),
]
# MIM models own a mask token and a linear head to the teacher's width.
MIM_PARAMS = [
    ('eva-giant', 768, 1_012_229_632),
    ('eva02-tiny', 1024, 5_699_968),
    ('eva02-small', 1024, 22_015_744),
    ('eva02-base', 1024, 86_546_944),
    ('eva02-large', 1024, 304_319_424),
]


def count(arch, patch_size, img_size, **options):
    with torch.device('meta'):
        model = EVAViT(arch, patch_size=patch_size, img_size=img_size, **options)
    return sum(param.numel() for param in model.parameters())


@pytest.mark.parametrize('arch, patch_size, img_size, expected', ENCODER_PARAMS)
def test_encoder_parameter_count(arch, patch_size, img_size, expected):
    assert count(arch, patch_size, img_size) == expected


@pytest.mark.parametrize('arch, patch_size, img_size, classes, expected', HEAD_PARAMS)
def test_parameter_count_with_head(arch, patch_size, img_size, classes, expected):
    out_type = 'cls_token' if 'clip' in arch else 'avg_featmap'
    head = (ARCHS[arch].embed_dims + 1) * classes
    assert count(arch, patch_size, img_size, out_type=out_type) + head == expected


@pytest.mark.parametrize('arch, target_dims, expected', MIM_PARAMS)
def test_parameter_count_of_mim_model(arch, target_dims, expected):
    trunk = count(arch, 14, 224, out_type='raw', with_mask_token=True)
    assert trunk + (ARCHS[arch].embed_dims + 1) * target_dims == expected


def test_hidden_width_is_truncated_not_rounded():
    assert resolve_arch(dict(embed_dims=1024, depth=1, num_heads=16)).ffn_hidden_dims == 2730


def test_released_patch_sizes():
    assert {name: arch.patch_size for name, arch in ARCHS.items() if arch.patch_size != 14} == {
        'eva02-clip-base': 16
    }


@pytest.mark.parametrize(
    'arch, error, words',
    [
        ('eva02-tinny', KeyError, 'eva02-tiny'),
        (dict(embed_dims=64, depth=2), TypeError, 'num_heads'),
        (dict(embed_dims=64, depth=2, num_heads=2, width=3), TypeError, 'width'),
        (dict(embed_dims=64, depth=2, num_heads=3), ValueError, 'num_heads=3'),
        (dict(embed_dims=60, depth=2, num_heads=6), ValueError, 'multiple of 4'),
        (dict(embed_dims=64, depth=0, num_heads=2), ValueError, 'arch.depth=0'),
        (dict(embed_dims=64, depth=2, num_heads=2, ffn_hidden_dims=0), ValueError, 'dims=0 must'),
        (dict(embed_dims=64, depth=2, num_heads=2, ffn='glu'), ValueError, "'glu'"),
        (dict(embed_dims=64, depth=2, num_heads=2, ffn='mlp', ffn_norm=True), ValueError, 'swiglu'),
    ],
)
def test_bad_arch_is_named(arch, error, words):
    with pytest.raises(error, match=words):
        resolve_arch(arch)
