"""Names and splits of every code base, against the real models of each."""

import pytest
import torch

from evamm.checkpoints import (
    CheckpointError,
    canonicalize,
    detect_dialect,
    from_evamm,
    to_evamm,
)
from evamm.checkpoints.rope_buffers import official_rope_tables
from evamm.models.backbones import EVAViT
from evamm.models.layers import rope_table
from evamm.models.variants import ARCHS

from .common import FAMILIES, GOLDEN, HEAD_DIMS, KINDS, canonical, fill, same

WRITTEN = ('evamm', 'official', 'timm', 'open_clip', 'mmpretrain', 'detectron2')


@pytest.mark.parametrize('dialect', WRITTEN)
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('family', FAMILIES)
def test_there_and_back_gives_the_same_bits(family: str, kind: str, dialect: str) -> None:
    ours = canonical(family, kind, torch.float16)
    if (kind, dialect) == ('clip', 'detectron2'):
        with pytest.raises(CheckpointError, match='image-text pair .*--trunk-only'):
            from_evamm(ours, dialect)
        return
    theirs = from_evamm(ours, dialect, head_dims=HEAD_DIMS)
    assert same(to_evamm(theirs), ours)  # the dialect is found
    again = from_evamm(to_evamm(theirs, dialect), dialect, head_dims=HEAD_DIMS)
    assert same(again, theirs)  # RoPE tables included


@pytest.mark.parametrize('name', sorted(ARCHS))
def test_every_released_architecture_goes_there_and_back(name: str) -> None:
    """At full size, shapes only."""
    with torch.device('meta'):
        state = EVAViT(name).state_dict()
    # mmpretrain's reader looks at the values of the key bias.
    state = {
        key: value if value.ndim > 1 else torch.zeros(value.shape) for key, value in state.items()
    }
    shapes = {key: value.shape for key, value in state.items()}
    for dialect in WRITTEN:
        back = to_evamm(from_evamm(state, dialect, rope=False), dialect)
        assert {key: value.shape for key, value in back.items()} == shapes, dialect


TIMM = {
    'eva02-tiny': 'eva02_tiny_patch14_224',
    'eva02-small': 'eva02_small_patch14_224',
    'eva02-base': 'eva02_base_patch14_224',
    'eva02-large': 'eva02_large_patch14_224',
    'eva02-clip-base': 'eva02_base_patch16_clip_224',
    'eva02-clip-large': 'eva02_large_patch14_clip_224',
    'eva02-clip-enormous': 'eva02_enormous_patch14_clip_224',
    'eva-giant': 'eva_giant_patch14_224',
    'eva-large': 'eva_large_patch14_196',
}


@pytest.mark.parametrize('name', sorted(TIMM))
def test_names_and_shapes_are_those_of_timm(name: str) -> None:
    import timm

    with torch.device('meta'):
        theirs = timm.create_model(TIMM[name], num_classes=7).state_dict()
        ours = EVAViT(
            name,
            img_size=196 if name == 'eva-large' else 224,
            out_type='cls_token' if 'clip' in name else 'avg_featmap',
        ).state_dict()
        ours['head.weight'] = torch.empty(7, ours['cls_token'].shape[-1])
        ours['head.bias'] = torch.empty(7)
    written = from_evamm(ours, 'timm')
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize('name', ['EVA01-g-14', 'EVA02-B-16', 'EVA02-E-14'])
def test_names_are_those_of_open_clip(name: str) -> None:
    open_clip = pytest.importorskip('open_clip')
    arch = {
        'EVA01-g-14': 'eva-clip-giant',
        'EVA02-B-16': 'eva02-clip-base',
        'EVA02-E-14': 'eva02-clip-enormous',
    }[name]
    with torch.device('meta'):  # else it builds the giants in memory first
        theirs = open_clip.create_model(name, pretrained=None, device='meta').state_dict()
    read = canonicalize(theirs)
    assert read.dialect == 'open_clip' and not read.dropped
    with torch.device('meta'):
        ours = EVAViT(arch, out_type='cls_token').state_dict()
    trunk_names = {k for k in read.state_dict if not k.startswith(('text.', 'head.', 'logit'))}
    assert trunk_names == set(ours)
    assert {k: v.shape for k, v in from_evamm(read.state_dict, 'open_clip').items()} == {
        k: v.shape for k, v in theirs.items()
    }


@pytest.mark.filterwarnings('ignore:.*other angles')  # the lists hold no values
@pytest.mark.parametrize('name', [n for n in GOLDEN if not n.startswith(('p14', 'pos_'))])
def test_names_are_those_of_the_official_code(name: str) -> None:
    """The golden cases list the keys of the real official models."""
    shapes = {key: tuple(shape) for key, shape in GOLDEN[name]['state'].items()}
    state = fill(shapes)
    ours = canonicalize(state)
    tables = {key for key in state if 'rope' in key}
    assert {key for key, rule, _ in ours.dropped if rule == 'rope-tables'} == tables
    assert not any('rope' in key for key in ours.state_dict)
    back = from_evamm(ours.state_dict, 'official', rope=False)
    assert same(back, {key: value for key, value in state.items() if key not in tables})
    if tables and not name.startswith('det'):
        head_dims = state['rope.freqs_cos'].shape[-1]
        written = from_evamm(ours.state_dict, 'official', head_dims=head_dims)
        assert {k: tuple(v.shape) for k, v in written.items()} == shapes


@pytest.mark.parametrize('grid', [(16, 16), (14, 14), (7, 7), (24, 24)])
def test_official_rope_tables_hold_the_angles_of_the_trunk(grid: tuple[int, int]) -> None:
    cos, sin = official_rope_tables(grid, head_dims=64)
    ours = rope_table(*grid, 64, prefix_tokens=0)  # [N, 32, 2]
    assert cos.shape == (grid[0] * grid[1], 64)
    torch.testing.assert_close(cos, ours[..., 0].repeat_interleave(2, 1), rtol=0, atol=2e-6)
    torch.testing.assert_close(sin, ours[..., 1].repeat_interleave(2, 1), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    'family, dialect, found',
    [
        ('base', 'official', 'official'),
        ('tiny', 'official', 'official'),
        ('base', 'timm', 'timm'),
        ('tiny', 'timm', 'timm'),
        ('clip_base', 'timm', 'timm'),
        ('giant', 'mmpretrain', 'mmpretrain'),
        ('base', 'mmpretrain', 'mmpretrain'),
        ('tiny', 'mmpretrain', 'mmpretrain'),
        ('base', 'open_clip', 'open_clip'),
        ('giant', 'open_clip', 'open_clip'),
        ('base', 'evamm', 'evamm'),
        ('tiny', 'evamm', 'evamm'),
        ('giant', 'official', 'evamm'),
        ('giant', 'timm', 'evamm'),  # the same names
    ],
)
def test_dialect_is_found(family: str, dialect: str, found: str) -> None:
    state = from_evamm(canonical(family), dialect, head_dims=HEAD_DIMS)
    assert detect_dialect(state) == found
    assert detect_dialect({'conv1.weight': torch.zeros(1)}) == 'unknown'


def test_tables_of_any_shape_are_dropped() -> None:
    """Old official files hold [16, 16, 64] tables, newer ones [256, 64]."""
    state = from_evamm(canonical('tiny'), 'official', head_dims=HEAD_DIMS)
    state['rope.freqs_cos'] = torch.zeros(16, 16, 64)
    state['blocks.1.attn.rope.freqs_sin'] = torch.zeros(1, 2, 3)
    with pytest.warns(UserWarning, match='rope.freqs_cos, .* hold other angles than evamm'):
        assert same(to_evamm(state), canonical('tiny'))


def test_old_text_names_of_eva_clip() -> None:
    state = {f'visual.{k}': v for k, v in canonical('giant', 'mim').items()}
    state |= {
        'text.logit_scale': torch.tensor(4.6),
        'ln_final.weight': torch.ones(2),
        'transformer.resblocks.0.ln_1.weight': torch.ones(2),
    }
    found = to_evamm(state)
    assert found['logit_scale'] == 4.6
    assert {'text.ln_final.weight', 'text.transformer.resblocks.0.ln_1.weight'} <= set(found)


def test_swiglu_branches_and_qkv_keep_their_order() -> None:
    """The gated half comes first; q, k, v in this order."""
    ours = canonical('base')
    official = from_evamm(ours, 'official', rope=False)
    timm = from_evamm(ours, 'timm')
    hidden = ours['blocks.0.mlp.w3.weight'].shape[1]
    gate = ours['blocks.0.mlp.w12.weight'][:hidden]
    key = ours['blocks.0.attn.qkv.weight'][64:128]
    assert torch.equal(official['blocks.0.mlp.w1.weight'], gate)
    assert torch.equal(timm['blocks.0.mlp.fc1_g.weight'], gate)
    assert torch.equal(official['blocks.0.attn.k_proj.weight'], key)
    assert torch.equal(timm['blocks.0.attn.k_proj.weight'], key)
    assert torch.equal(timm['blocks.0.attn.v_proj.bias'], ours['blocks.0.attn.v_bias'])


def test_trained_key_bias_is_kept() -> None:
    """mmpretrain trains it and RoPE makes it matter, so it must not vanish."""
    state = from_evamm(canonical('tiny'), 'mmpretrain', head_dims=HEAD_DIMS)
    state['backbone.layers.1.attn.qkv.bias'][70] = 0.5
    found = to_evamm(state)
    assert torch.equal(found['blocks.1.attn.qkv.bias'], state['backbone.layers.1.attn.qkv.bias'])
    assert 'blocks.0.attn.q_bias' in found


def test_incomplete_split_is_refused() -> None:
    state = from_evamm(canonical('base'), 'official', rope=False)
    del state['blocks.1.attn.k_proj.weight']
    with pytest.raises(CheckpointError, match=r'blocks\.1\.attn\.k_proj\.weight is missing'):
        to_evamm(state)


def test_mixed_dialects_are_refused() -> None:
    state = from_evamm(canonical('base'), 'timm')
    state['blocks.0.mlp.w12.weight'] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=r'two tensors .* blocks\.0\.mlp\.w12\.weight'):
        to_evamm(state)


def test_bad_requests_say_what_is_wrong() -> None:
    with pytest.raises(CheckpointError, match="'keras' is unknown"):
        to_evamm(canonical('tiny'), 'keras')
    with pytest.raises(CheckpointError, match="'keras' is unknown"):
        from_evamm(canonical('tiny'), 'keras')
    with pytest.raises(CheckpointError, match='call to_evamm first'):
        from_evamm({'layers.0.ln1.weight': torch.zeros(1)}, 'timm')
    with pytest.raises(CheckpointError, match='no square'):
        from_evamm(canonical('tiny', img_size=(56, 70)), 'official', head_dims=HEAD_DIMS)
