"""A small image-text model with every part of a released one."""

import pytest
import torch

from evamm.registry import MODELS

SIZE = 28
TINY = dict(
    type='evamm.EVACLIP',
    backbone=dict(
        type='evamm.EVAViT',
        arch=dict(embed_dims=32, depth=2, num_heads=2),
        img_size=SIZE,
        out_type='cls_token',
    ),
    text=dict(type='evamm.CLIPTextTransformer', arch=dict(width=32, depth=2, num_heads=2)),
    embed_dims=16,
)


@pytest.fixture
def make_clip():
    """Builds the model with random weights that tell images and texts apart."""

    def make(seed=0, **settings):
        torch.manual_seed(seed)
        model = MODELS.build({**TINY, **settings})
        model.init_weights()
        torch.nn.init.normal_(model.head.weight, std=0.3)
        torch.nn.init.normal_(model.text.token_embedding.weight)
        return model.eval()

    return make


@pytest.fixture
def clip(make_clip):
    return make_clip()


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    """Classifiers of the tests are kept in a folder of the test."""
    monkeypatch.setenv('EVAMM_HOME', str(tmp_path / 'home'))
    return tmp_path / 'home' / 'zero_shot'
