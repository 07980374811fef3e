"""The released image-text pairs are exactly the official ones."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evamm.models.clip_variants import CLIP_ARCHS, TEXT_ARCHS, TextArch, resolve_text_arch
from evamm.models.flops import count_clip_macs
from evamm.models.variants import ARCHS
from evamm.registry import MODELS

# Parameters of the image tower with its head, of the text tower, and the columns of OpenCLIP's
# model_profile.csv: millions of parameters and GFLOPs of the pair. EVA-CLIP's own counts of the
# towers are the same.
PAIRS = {
    'eva01-clip-g-14': (1_012_588_928, 123_846_912, 1136.44, 547.36),
    'eva01-clip-g-14-plus': (1_012_588_928, 354_032_640, 1366.62, 581.15),
    'eva02-clip-b-16': (86_263_040, 63_428_096, 149.69, 41.09),
    'eva02-clip-l-14': (304_105_152, 123_650_304, 427.76, 175.3),
    'eva02-clip-l-14-336': (304_432_832, 123_650_304, 428.08, 395.16),
    'eva02-clip-bige-14': (4_350_556_928, 354_032_640, 4704.59, 2311.42),
    'eva02-clip-bige-14-plus': (4_350_556_928, 694_332_160, 5044.89, 2362.19),
}


def build(name, **options):
    pair = CLIP_ARCHS[name]
    with torch.device('meta'):
        return MODELS.build(
            dict(
                type='evamm.EVACLIP',
                backbone=dict(
                    type='evamm.EVAViT',
                    arch=pair.vision,
                    img_size=pair.img_size,
                    out_type='cls_token',
                ),
                text=dict(type='evamm.CLIPTextTransformer', arch=pair.text),
                embed_dims=pair.embed_dims,
                **options,
            )
        ).eval()


def count(module):
    return sum(param.numel() for param in module.parameters())


def test_every_pair_is_here():
    assert set(CLIP_ARCHS) == set(PAIRS)
    assert {pair.text for pair in CLIP_ARCHS.values()} == set(TEXT_ARCHS)
    assert all(pair.vision in ARCHS for pair in CLIP_ARCHS.values())


@pytest.mark.parametrize('name', PAIRS)
def test_parameters_and_operations(name):
    image, text, millions, gflops = PAIRS[name]
    model = build(name)
    assert count(model.backbone) + count(model.head) == image
    assert count(model.text) == text
    assert count(model) == image + text + 1  # the logit scale
    assert round(count(model) / 1e6, 2) == millions
    assert round(2 * count_clip_macs(name) / 1e9, 2) == gflops
    # What really runs, by torch's own counter.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device('meta'):
        model.encode_image(torch.zeros(2, 3, *model.backbone.img_size))
        model.encode_text(torch.zeros(2, 77, dtype=torch.long))
    macs = model.count_macs((2, 3, *model.backbone.img_size))
    assert 2 * macs == counter.get_total_flops()
    # The last blocks of both towers compute one token: a little less than the published figure.
    assert 0.92 < macs / 2 / count_clip_macs(name) < 1


@pytest.mark.parametrize(
    'arch, error, words',
    [
        ('clip-base', KeyError, 'clip-base-text'),
        (dict(width=64, depth=2), TypeError, 'num_heads'),
        (dict(width=64, depth=2, num_heads=2, heads=3), TypeError, 'heads'),
        (dict(width=64, depth=2, num_heads=3), ValueError, 'num_heads=3'),
        (dict(width=64, depth=0, num_heads=2), ValueError, 'arch.depth=0'),
    ],
)
def test_bad_text_arch_is_named(arch, error, words):
    with pytest.raises(error, match=words):
        resolve_text_arch(arch)


def test_text_archs_by_name_and_fields():
    expected = TextArch(width=512, depth=12, num_heads=8)
    assert resolve_text_arch('clip-base-text') == expected
    assert resolve_text_arch(dict(width=512, depth=12, num_heads=8)) == expected
