"""Outputs stay the same when weights move between evamm and the models of other libraries.

timm is compared for every released model in tests/parity; here is one model per dialect, in both
directions, through files.
"""

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evamm.checkpoints import from_evamm, load_checkpoint
from evamm.models.backbones import EVAViT

TOLERANCE = 5e-6
IMAGE = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def randomise(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, param in model.named_parameters():
            noise = torch.randn(param.shape, generator=generator) * 0.1
            param.copy_(1 + noise if name.endswith('norm.weight') else noise)
    model.eval()  # mmpretrain's returns nothing
    return model


def assert_close(found: Tensor, expected: Tensor) -> None:
    error = (found - expected).double().norm() / expected.double().norm()
    assert error < TOLERANCE, float(error)


@torch.no_grad()
def check_both_ways(
    theirs: nn.Module, forward: object, ours: EVAViT, dialect: str, folder: Path
) -> None:
    """Their weights in our trunk, then other weights of ours in their model."""
    path = folder / 'file.pth'
    torch.save({'model': theirs.state_dict()}, path)
    assert load_checkpoint(ours.eval(), path).dialect == dialect
    assert_close(ours(IMAGE)[0], forward(theirs))

    randomise(ours)
    missing, unexpected = theirs.load_state_dict(
        trunk_only(from_evamm(ours.state_dict(), dialect, head_dims=ours.arch.head_dims), theirs),
        strict=False,
    )
    assert not unexpected
    assert all(not name.startswith(('visual.trunk.blocks', 'blocks', 'layers')) for name in missing)
    assert_close(ours(IMAGE)[0], forward(theirs))


def trunk_only(state: dict[str, Tensor], theirs: nn.Module) -> dict[str, Tensor]:
    """mmpretrain's backbones alone have no `backbone.` before their names."""
    if hasattr(theirs, 'layers'):
        return {name.removeprefix('backbone.'): value for name, value in state.items()}
    return state


@pytest.mark.parametrize('sub_ln', [True, False])
def test_timm(sub_ln: bool, tmp_path: Path) -> None:
    from timm.models.eva import Eva

    theirs = Eva(
        img_size=56,
        patch_size=14,
        embed_dim=96,
        depth=2,
        num_heads=3,
        num_classes=0,
        mlp_ratio=8 / 3,
        swiglu_mlp=True,
        scale_mlp=sub_ln,
        qkv_fused=not sub_ln,
        use_rot_pos_emb=True,
        ref_feat_shape=(16, 16),
    )
    ours = EVAViT(dict(embed_dims=96, depth=2, num_heads=3, ffn_norm=sub_ln), img_size=56)
    check_both_ways(randomise(theirs), lambda m: m(IMAGE), ours, 'timm', tmp_path)


def test_open_clip(tmp_path: Path) -> None:
    """A small tower of the EVA-02-CLIP kind under open_clip's own wrapper of timm."""
    import timm

    TimmModel = pytest.importorskip('open_clip.timm_model').TimmModel

    def create(name: str, **kwargs) -> nn.Module:
        return original(
            'eva02_base_patch16_clip_224',
            **kwargs,
            img_size=56,
            patch_size=14,
            embed_dim=96,
            depth=2,
            num_heads=3,
        )

    original, timm.create_model = timm.create_model, create
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            tower = TimmModel(
                'eva02_base_patch16_clip_224',
                embed_dim=24,
                image_size=56,
                pool='token',
                proj=None,
                pretrained=False,
            )
    finally:
        timm.create_model = original
    theirs = nn.Module()
    theirs.visual = randomise(tower)
    ours = EVAViT(
        dict(embed_dims=96, depth=2, num_heads=3, ffn_norm=True, attn_norm=True),
        img_size=56,
        out_type='cls_token',
    )
    check_both_ways(
        theirs, lambda m: m.visual.trunk.forward_features(IMAGE)[:, 0], ours, 'open_clip', tmp_path
    )


@pytest.mark.parametrize('sub_ln', [True, False])
def test_mmpretrain_eva02(sub_ln: bool, tmp_path: Path) -> None:
    """They are right with the tables of the file only, never with those they compute."""
    from mmpretrain.models.backbones import ViTEVA02

    arch = dict(embed_dims=96, num_layers=2, num_heads=3, feedforward_channels=256)
    theirs = randomise(
        ViTEVA02(
            arch,
            img_size=56,
            patch_size=14,
            sub_ln=sub_ln,
            final_norm=False,
            out_type='avg_featmap',
        )
    )
    for layer in theirs.layers:
        layer.attn.qkv.bias.data[96:192] = 0  # as in converted files
    ours = randomise(
        EVAViT(dict(embed_dims=96, depth=2, num_heads=3, ffn_norm=sub_ln), img_size=56)
    )
    tables = {
        name.removeprefix('backbone.'): value
        for name, value in from_evamm(ours.state_dict(), 'mmpretrain', head_dims=32).items()
        if 'rope' in name
    }
    theirs.load_state_dict(tables, strict=False)
    # mmpretrain's norms have eps 1e-5.
    for module in theirs.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    check_both_ways(theirs, lambda m: m(IMAGE)[0], ours, 'mmpretrain', tmp_path)


@pytest.mark.parametrize('bias', ['qv_bias', True])
def test_mmpretrain_eva01(bias: object, tmp_path: Path) -> None:
    from mmpretrain.models.backbones import BEiTViT

    arch = dict(embed_dims=96, num_layers=2, num_heads=3, feedforward_channels=200)
    theirs = randomise(
        BEiTViT(
            arch,
            img_size=56,
            patch_size=14,
            bias=bias,
            use_abs_pos_emb=True,
            use_rel_pos_bias=False,
            layer_scale_init_value=0.0,
            out_type='avg_featmap',
        )
    )
    ours = EVAViT(
        dict(
            embed_dims=96,
            depth=2,
            num_heads=3,
            ffn='mlp',
            ffn_hidden_dims=200,
            rope=False,
            qkv_bias='qkv' if bias is True else 'qv',
        ),
        img_size=56,
    )
    check_both_ways(theirs, lambda m: m(IMAGE)[0], ours, 'mmpretrain', tmp_path)


def test_trained_key_bias_of_mmpretrain_gives_the_same_features(tmp_path: Path) -> None:
    from mmpretrain.models.backbones import ViTEVA02

    arch = dict(embed_dims=96, num_layers=2, num_heads=3, feedforward_channels=256)
    theirs = randomise(
        ViTEVA02(
            arch,
            img_size=56,
            patch_size=14,
            final_norm=False,
            out_type='avg_featmap',
            norm_cfg=dict(type='LN', eps=1e-6),
        )
    )
    for layer in theirs.layers:
        layer.attn.qkv.bias.data[96:192] *= 20
    ours = EVAViT(dict(embed_dims=96, depth=2, num_heads=3, qkv_bias='qkv'), img_size=56).eval()
    tables = from_evamm(ours.state_dict(), 'mmpretrain', head_dims=32)
    theirs.load_state_dict(
        {name.removeprefix('backbone.'): value for name, value in tables.items() if 'rope' in name},
        strict=False,
    )
    torch.save(theirs.state_dict(), tmp_path / 'file.pth')
    load_checkpoint(ours, tmp_path / 'file.pth')
    with torch.no_grad():
        expected = theirs(IMAGE)[0]
        assert_close(ours(IMAGE)[0], expected)
        for block in ours.blocks:  # under RoPE it does matter
            block.attn.qkv.bias[96:192] = 0
        assert (ours(IMAGE)[0] - expected).norm() / expected.norm() > 1e-4
