"""The formula counts what torch's counter counts, and what published tables print."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evamm.models.backbones import EVAViT
from evamm.models.flops import count_macs, count_table_macs
from evamm.models.variants import ARCHS


def count_with_torch(arch, img_size, patch_size=None, *, num_classes=0):
    # On a CPU the counter does not see the attention.
    with torch.device('meta'):
        model = EVAViT(arch, img_size=img_size, patch_size=patch_size).eval()
        head = torch.nn.Linear(model.embed_dims, num_classes) if num_classes else None
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        image = torch.zeros(1, 3, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        (features,) = model(image)
        if head is not None:
            head(features)
    return counter.get_total_flops()


@pytest.mark.parametrize('arch', ARCHS)
def test_every_architecture_equals_the_counter(arch):
    assert 2 * count_macs(arch, 224) == count_with_torch(arch, 224)


@pytest.mark.parametrize(
    'fields',
    [
        dict(),
        dict(ffn='mlp', rope=False),
        dict(ffn_norm=True, attn_norm=True),
        dict(ffn_hidden_dims=37, qkv_bias='qkv'),
        dict(ffn='mlp', post_norm=True, rope=False, qkv_bias='none'),
    ],
)
@pytest.mark.parametrize(
    ('img_size', 'patch_size', 'num_classes'), [(32, 8, 0), ((24, 40), 8, 10), (48, 16, 3)]
)
def test_small_models_equal_the_counter(fields, img_size, patch_size, num_classes):
    arch = dict(embed_dims=24, depth=2, num_heads=2, **fields)
    counted = count_with_torch(arch, img_size, patch_size, num_classes=num_classes)
    assert 2 * count_macs(arch, img_size, patch_size, num_classes=num_classes) == counted


@pytest.mark.parametrize(
    ('arch', 'img_size', 'patch_size', 'printed'),
    [
        # FLOPs in the metafiles of mmpretrain 1.2.0 (configs/eva, configs/eva02)
        ('eva02-tiny', 336, 14, 4_675_416_000),
        ('eva02-small', 336, 14, 15_476_744_064),
        ('eva02-base', 448, 14, 107_105_984_256),
        ('eva02-large', 448, 14, 362_333_836_208),
        ('eva-large', 196, 14, 61_565_981_696),
        ('eva-large', 336, 14, 191_100_916_736),
        ('eva-giant', 224, 14, 267_174_833_024),
        ('eva-giant', 224, 16, 203_517_463_424),
        ('eva-giant', 336, 14, 620_642_757_504),
        ('eva-giant', 560, 14, 1_906_761_591_680),
    ],
)
def test_table_figure_equals_the_published_one(arch, img_size, patch_size, printed):
    assert count_table_macs(arch, img_size, patch_size) == printed


def test_size_must_be_whole_patches():
    with pytest.raises(ValueError, match='img_size=225 is no multiple of patch_size=14'):
        count_macs('eva02-tiny', 225)
