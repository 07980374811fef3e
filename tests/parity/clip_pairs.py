"""Every released image-text pair, made small: two blocks, two heads of the released width."""

import copy
from dataclasses import asdict
from typing import Any
from unittest import mock

import pytest
import timm
import torch
from torch import Tensor, nn

from evamm.models.clip import EVACLIP
from evamm.models.clip_variants import CLIP_ARCHS, TEXT_ARCHS
from evamm.models.variants import ARCHS

from .common import randomise
from .formula import captions

# Ours -> open_clip's name.
OPEN_CLIP = {
    'eva01-clip-g-14': 'EVA01-g-14',
    'eva01-clip-g-14-plus': 'EVA01-g-14-plus',
    'eva02-clip-b-16': 'EVA02-B-16',
    'eva02-clip-l-14': 'EVA02-L-14',
    'eva02-clip-l-14-336': 'EVA02-L-14-336',
    'eva02-clip-bige-14': 'EVA02-E-14',
    'eva02-clip-bige-14-plus': 'EVA02-E-14-plus',
}
PAIRS = sorted(CLIP_ARCHS)
VOCAB, CONTEXT = 64, 12


def head_dims(name: str) -> int:
    return ARCHS[CLIP_ARCHS[name].vision].head_dims


def small_arch(name: str) -> dict[str, Any]:
    """Trunk of a pair: its heads as wide, its FFN as many times as wide as released."""
    released = ARCHS[CLIP_ARCHS[name].vision]
    width = 2 * released.head_dims
    hidden = released.ffn_hidden_dims * width // released.embed_dims
    return dict(asdict(released), embed_dims=width, depth=2, num_heads=2, ffn_hidden_dims=hidden)


def small_text(name: str) -> dict[str, int]:
    """Text tower of a pair, another one for each released tower."""
    order = list(TEXT_ARCHS).index(CLIP_ARCHS[name].text)
    return dict(width=16 * (order + 2), depth=2 + order % 2, num_heads=order + 2)


def img_size(name: str) -> int:
    """16 patches, 36 for the pair for larger images."""
    side = 6 if CLIP_ARCHS[name].img_size == 336 else 4
    return side * ARCHS[CLIP_ARCHS[name].vision].patch_size


def embed_dims(name: str) -> int:
    return CLIP_ARCHS[name].embed_dims // 32


def config(name: str) -> dict[str, Any]:
    return dict(
        backbone=dict(
            type='evamm.EVAViT',
            arch=small_arch(name),
            img_size=img_size(name),
            out_type='cls_token',
        ),
        text=dict(
            type='evamm.CLIPTextTransformer',
            arch=small_text(name),
            context_length=CONTEXT,
            vocab_size=VOCAB,
        ),
        embed_dims=embed_dims(name),
    )


def build(name: str) -> EVACLIP:
    """Our small pair with random weights."""
    model = EVACLIP(**copy.deepcopy(config(name))).eval()
    randomise(model)
    return model


def build_open_clip(name: str) -> nn.Module:
    """open_clip's own pair from its own config, with the same few numbers changed."""
    open_clip = pytest.importorskip('open_clip')
    cfg = open_clip.get_model_config(OPEN_CLIP[name])
    assert cfg.pop('custom_text')
    text, arch = small_text(name), small_arch(name)
    cfg['embed_dim'] = embed_dims(name)
    cfg['vision_cfg']['image_size'] = img_size(name)
    cfg['text_cfg'].update(
        width=text['width'],
        heads=text['num_heads'],
        layers=text['depth'],
        context_length=CONTEXT,
        vocab_size=VOCAB,
    )
    make = timm.create_model

    def small(model_name: str, **kwargs: object) -> nn.Module:
        sizes = dict(embed_dim=arch['embed_dims'], depth=arch['depth'], num_heads=2)
        return make(model_name, **kwargs, **sizes, img_size=img_size(name))

    with mock.patch.object(timm, 'create_model', small):
        model = open_clip.model.CustomTextCLIP(
            cfg['embed_dim'],
            open_clip.CLIPVisionCfg(**cfg['vision_cfg']),
            open_clip.CLIPTextCfg(**cfg['text_cfg']),
        ).eval()
    randomise(model)
    return model


def batch(name: str) -> tuple[Tensor, Tensor]:
    """Three images and four texts."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, img_size(name), img_size(name), generator=generator)
    return images, captions(4, CONTEXT, VOCAB)
