"""mmpretrain's MAE-style EVA: what its own classes write is what ours read, and back."""

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from evamm.checkpoints import Checkpoint, from_evamm, load_checkpoint, to_evamm
from evamm.registry import MODELS as OURS

WIDTH, DECODER, TARGET = 24, 16, 8


@pytest.fixture(scope='module')
def theirs() -> dict[str, torch.Tensor]:
    """State dict of mmpretrain's EVA with a narrow trunk and decoder."""
    arch = dict(embed_dims=WIDTH, num_layers=2, num_heads=2, feedforward_channels=4 * WIDTH)
    decoder = dict(decoder_embed_dim=DECODER, decoder_depth=2, decoder_num_heads=2)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(
                type='EVA',
                backbone=dict(type='MAEViT', arch=arch, img_size=32, patch_size=16),
                neck=dict(
                    type='MAEPretrainDecoder',
                    num_patches=4,
                    embed_dim=WIDTH,
                    predict_feature_dim=TARGET,
                    **decoder,
                ),
                head=dict(type='MIMHead', loss=dict(type='CosineSimilarityLoss')),
                target_generator=None,
            )
        )
    return {name: torch.randn_like(value) for name, value in model.state_dict().items()}


def test_every_tensor_finds_its_place(theirs):
    model = OURS.build(
        dict(
            type='evamm.MAEPretrainer',
            backbone=dict(
                type='evamm.EVAViT',
                arch=dict(
                    embed_dims=WIDTH, depth=2, num_heads=2, ffn='mlp', qkv_bias='qkv', rope=False
                ),
                img_size=32,
                patch_size=16,
            ),
            decoder=dict(embed_dims=DECODER, depth=2, num_heads=2),
            target_dims=TARGET,
        )
    )
    report = load_checkpoint(model, Checkpoint(theirs, 'state_dict', {}), complete=True)
    assert not report.missing
    state = model.state_dict()
    for ours, name in (
        ('decoder_norm.weight', 'neck.ln1.weight'),
        ('decoder_blocks.1.norm2.bias', 'neck.decoder_blocks.1.ln2.bias'),
        ('decoder_blocks.0.mlp.fc2.weight', 'neck.decoder_blocks.0.ffn.layers.1.weight'),
        ('decoder_pred.bias', 'neck.decoder_pred.bias'),
        ('mask_token', 'neck.mask_token'),
    ):
        assert torch.equal(state[ours], theirs[name]), ours


def test_and_back(theirs):
    back = from_evamm(to_evamm(theirs), 'mmpretrain')
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.items())


def test_another_neck_keeps_its_name(theirs):
    others = {name: value for name, value in theirs.items() if not name.startswith('neck.')}
    others['neck.ln1.weight'] = torch.ones(3)
    assert 'neck.ln1.weight' in to_evamm(others)
