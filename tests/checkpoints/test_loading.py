"""What a model takes from a file, and every rule for what it does not take."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from evamm.checkpoints import (
    CheckpointError,
    fit_state_dict,
    from_evamm,
    load_checkpoint,
    resize_patch_kernel,
    resize_pos_embed,
)
from evamm.models.backbones import EVAViT

from .common import HEAD_DIMS, arch, canonical, trunk


class Model(nn.Module):
    """A trunk under some name, with whatever else a model has."""

    def __init__(self, backbone: nn.Module, classes: int = 0, name: str = 'backbone') -> None:
        super().__init__()
        self.add_module(name, backbone)
        if classes:
            self.head = nn.Module()
            self.head.fc = nn.Linear(64, classes)


def save(state: dict, folder: Path, **others: object) -> Path:
    path = folder / 'file.pth'
    torch.save(dict(others, state_dict=state) if others else state, path)
    return path


def rules(entries: list[tuple[str, str, str]]) -> dict[str, str]:
    return {name: rule for name, rule, _ in entries}


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize('prefix', ['', 'backbone', 'visual', 'image_encoder.model'])
def test_trunk_is_found_anywhere(prefix: str, tmp_path: Path) -> None:
    state = canonical('base')
    inner = trunk('base')
    model = inner
    for name in reversed(prefix.split('.') if prefix else []):
        model = Model(model, name=name)
    report = load_checkpoint(model, save(from_evamm(state, 'timm'), tmp_path))
    assert all(torch.equal(inner.state_dict()[name], state[name]) for name in inner.state_dict())
    assert rules(report.dropped) == {'head.weight': 'head', 'head.bias': 'head'}
    assert report.dialect == 'timm' and not report.missing


@pytest.mark.parametrize('dialect', ['evamm', 'official', 'timm', 'open_clip', 'mmpretrain'])
@pytest.mark.parametrize('family', ['giant', 'large_mae', 'tiny', 'base'])
def test_classifier_is_filled_from_every_dialect(family: str, dialect: str, tmp_path: Path) -> None:
    state = canonical(family)
    model = Model(trunk(family), 5)
    path = save(from_evamm(state, dialect, head_dims=HEAD_DIMS), tmp_path)
    report = load_checkpoint(model, path, complete=True)
    assert not report.missing and not report.unexplained
    assert torch.equal(model.head.fc.weight, state['head.weight'])
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize(
    'wrap', ['module.', '_orig_mod.', 'backbone._orig_mod.', 'module._orig_mod.backbone.']
)
def test_wrapping_modules_leave_no_trace(wrap: str, tmp_path: Path) -> None:
    """Files of DistributedDataParallel and torch.compile, and models wrapped by them."""
    state = canonical('tiny')
    state = {name: value for name, value in state.items() if not name.startswith('head')}
    model = trunk('tiny')
    load_checkpoint(model, save({wrap + name: v for name, v in state.items()}, tmp_path))
    assert torch.equal(model.pos_embed, state['pos_embed'])

    fitted, _ = fit_state_dict(state, {wrap + name: v.shape for name, v in state.items()})
    assert set(fitted) == {wrap + name for name in state}


def test_average_is_preferred_and_can_be_declined(tmp_path: Path) -> None:
    raw, average = canonical('tiny', seed=1), canonical('tiny', seed=2)
    path = tmp_path / 'file.pth'
    torch.save({'module': raw, 'model_ema': average, 'epoch': 3}, path)
    model = trunk('tiny')
    assert load_checkpoint(model, path).source == 'model_ema'
    assert torch.equal(model.cls_token, average['cls_token'])
    assert load_checkpoint(model, path, prefer_ema=False).source == 'module'
    assert torch.equal(model.cls_token, raw['cls_token'])


def test_swapped_average_of_mmengine(tmp_path: Path) -> None:
    """Its EMAHook puts the average into `state_dict` and the raw weights into `ema_state_dict`."""
    raw, average = canonical('tiny', seed=1), canonical('tiny', seed=2)
    path = tmp_path / 'file.pth'
    torch.save(
        {
            'meta': {'epoch': 2},
            'state_dict': {f'backbone.{k}': v for k, v in average.items()},
            'ema_state_dict': {
                'steps': torch.tensor(7),
                **{f'module.backbone.{k}': v for k, v in raw.items()},
            },
        },
        path,
    )
    model = trunk('tiny')
    report = load_checkpoint(model, path)
    assert torch.equal(model.cls_token, average['cls_token'])
    assert report.source == 'state_dict' and report.meta == {'epoch': 2}
    assert load_checkpoint(model, path, prefer_ema=False).source == 'ema_state_dict'
    assert torch.equal(model.cls_token, raw['cls_token'])


def test_grid_and_patch_are_resized_by_the_official_rule(tmp_path: Path) -> None:
    state = canonical('tiny', img_size=112, patch_size=14)  # 8 x 8
    model = trunk('tiny', img_size=(64, 96), patch_size=16)  # 4 x 6
    report = load_checkpoint(model, save(state, tmp_path))
    assert torch.equal(model.pos_embed, resize_pos_embed(state['pos_embed'], (4, 6)))
    kernel = resize_patch_kernel(state['patch_embed.proj.weight'], 16)
    assert torch.equal(model.patch_embed.proj.weight, kernel)
    assert {entry[0]: entry[1:3] for entry in report.resized} == {
        'pos_embed': ((1, 65, 64), (1, 25, 64)),
        'patch_embed.proj.weight': ((64, 3, 14, 14), (64, 3, 16, 16)),
    }


def test_same_number_of_patches_in_another_grid_is_pointed_out(tmp_path: Path) -> None:
    state = canonical('tiny', img_size=84)  # 6 x 6
    with pytest.warns(UserWarning, match='taken for a 4x9 grid'):
        load_checkpoint(trunk('tiny', img_size=(56, 126)), save(state, tmp_path))


def test_half_precision_is_cast(tmp_path: Path) -> None:
    state = canonical('tiny', dtype=torch.bfloat16)
    model = trunk('tiny')
    load_checkpoint(model, save(state, tmp_path))
    assert model.cls_token.dtype == torch.float32
    assert torch.equal(model.cls_token, state['cls_token'].float())


def test_head_of_another_class_count_starts_fresh_with_a_warning(tmp_path: Path) -> None:
    model = Model(trunk('tiny'), 7)
    before = model.head.fc.weight.clone()
    path = save(canonical('tiny', classes=5), tmp_path)
    with pytest.warns(UserWarning, match='5 outputs, the model 7'):
        report = load_checkpoint(model, path)
    assert torch.equal(model.head.fc.weight, before)
    assert rules(report.dropped) == {'head.weight': 'class-count', 'head.bias': 'class-count'}
    assert rules(report.missing) == {'head.fc.weight': 'class-count', 'head.fc.bias': 'class-count'}
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match='missing head.fc.weight'):
        load_checkpoint(model, path, complete=True)


@pytest.mark.parametrize('dialect', ['evamm', 'official', 'timm'])
def test_norm_of_pretraining_moves_or_starts_fresh(dialect: str, tmp_path: Path) -> None:
    state = canonical('base', 'mim')
    path = save(from_evamm(state, dialect, head_dims=HEAD_DIMS), tmp_path)
    model = Model(trunk('base'), 5)
    report = load_checkpoint(model, path)
    assert torch.equal(model.backbone.fc_norm.weight, state['norm.weight'])
    assert rules(report.dropped)['mask_token'] == 'mim-extras'
    assert rules(report.missing) == {'head.fc.weight': 'no-head', 'head.fc.bias': 'no-head'}

    model = trunk('base')
    report = load_checkpoint(model, path, mim_norm='discard')
    assert torch.equal(model.fc_norm.weight, torch.ones(64))
    assert rules(report.missing)['fc_norm.weight'] == 'mim-norm'
    with pytest.raises(CheckpointError, match="mim_norm='drop' is unknown"):
        load_checkpoint(model, path, mim_norm='drop')


def test_norm_has_no_place_in_a_feature_map_without_one(tmp_path: Path) -> None:
    model = trunk('tiny', out_type='featmap', final_norm=False, with_cls_token=False)
    for kind, rule in (('mim', 'norm.weight'), ('classifier', 'fc_norm.weight')):
        report = load_checkpoint(model, save(canonical('tiny', kind), tmp_path))
        assert rules(report.dropped)[rule] == 'final-norm'
        assert rules(report.dropped)['cls_token'] == 'class-token'


def test_norm_that_a_classifier_never_trained_is_missed(tmp_path: Path) -> None:
    path = save(canonical('tiny', 'classifier'), tmp_path)
    with pytest.raises(CheckpointError, match=r'final_norm=False.*missing norm\.weight'):
        load_checkpoint(trunk('tiny', out_type='cls_token'), path)


@pytest.mark.parametrize('out_type', ['avg_featmap', 'featmap'])
def test_trunks_saved_without_a_norm(out_type: str, tmp_path: Path) -> None:
    """Such as mmpretrain's headless files."""
    state = {
        name: value
        for name, value in canonical('tiny').items()
        if not name.startswith(('fc_norm.', 'head.'))
    }
    path = save(from_evamm(state, 'mmpretrain', head_dims=HEAD_DIMS), tmp_path)
    model = trunk('tiny', out_type=out_type)
    with pytest.warns(UserWarning, match='no final norm'):
        report = load_checkpoint(model, path)
    assert set(rules(report.missing).values()) == {'no-norm'}
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match=r'missing (fc_)?norm'):
        load_checkpoint(model, path, complete=True)
    # A classifier that lost its norm is damaged.
    state['head.weight'] = torch.ones(5, 64)
    with pytest.raises(CheckpointError, match=r'missing (fc_)?norm'):
        load_checkpoint(model, save(state, tmp_path))


def test_inner_norm_starts_fresh_only_if_allowed(tmp_path: Path) -> None:
    """The CLIP towers have one more norm than the MIM files they start from."""
    state = canonical('base', 'mim')
    path = save(from_evamm(state, 'official', head_dims=HEAD_DIMS), tmp_path)
    model = trunk('clip_base', out_type='cls_token')
    before = snapshot(model)
    with pytest.raises(CheckpointError, match=r'missing blocks\.0\.attn\.norm\.weight'):
        load_checkpoint(model, path)
    assert unchanged(model, before)
    report = load_checkpoint(model, path, allow_missing=['blocks.*.attn.norm.*'])
    assert set(rules(report.missing).values()) == {'allow-missing'} and len(report.missing) == 4
    assert torch.equal(model.norm.bias, state['norm.bias'])


def test_decoder_of_mae_pretraining_is_left_out(tmp_path: Path) -> None:
    state = canonical('large_mae', 'mim')
    state['mask_token'] = torch.zeros(1, 1, 32)  # the decoder's, of another width
    state |= {
        'decoder_embed.weight': torch.zeros(32, 64),
        'decoder_pos_embed': torch.zeros(1, 17),
        'decoder_blocks.0.norm1.weight': torch.zeros(32),
    }
    model = trunk('large_mae', out_type='raw', with_mask_token=False)
    report = load_checkpoint(model, save(state, tmp_path))
    assert rules(report.dropped)['decoder_blocks.0.norm1.weight'] == 'mae-decoder'
    assert rules(report.dropped)['mask_token'] == 'mae-decoder'


def test_parts_of_larger_models_come_and_go_as_a_whole(tmp_path: Path) -> None:
    state = canonical('tiny', 'clip')
    model = Model(trunk('tiny', out_type='cls_token'))
    model.neck = nn.Linear(2, 2)
    report = load_checkpoint(model, save(state, tmp_path))
    assert rules(report.dropped)['logit_scale'] == 'text-tower'
    assert rules(report.missing) == {'neck.weight': 'other-part', 'neck.bias': 'other-part'}

    state['neck.weight'] = torch.ones(2, 2)  # half a neck is no neck
    with pytest.raises(CheckpointError, match=r'missing neck\.bias'):
        load_checkpoint(model, save(state, tmp_path))


def test_linear_probe_is_folded_into_the_head(tmp_path: Path) -> None:
    """Official probes end in BatchNorm without weights and a Linear."""
    state = canonical('giant', 'clip')
    norm = nn.BatchNorm1d(64, affine=False, eps=1e-6)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    probe = nn.Sequential(norm, nn.Linear(64, 5)).eval()
    state = {k: v for k, v in state.items() if not k.startswith(('head', 'text', 'logit'))}
    state |= {f'head.{name}': value for name, value in probe.state_dict().items()}
    model = Model(trunk('giant', out_type='cls_token'), 5)
    load_checkpoint(model, save(state, tmp_path), complete=True)
    feat = torch.randn(3, 64)
    torch.testing.assert_close(model.head.fc(feat), probe(feat))


def test_key_bias(tmp_path: Path) -> None:
    state = canonical('tiny')
    theirs = from_evamm(state, 'mmpretrain', head_dims=HEAD_DIMS)
    with_key_bias = EVAViT(dict(arch('tiny'), qkv_bias='qkv'), img_size=56, patch_size=14)
    load_checkpoint(with_key_bias, save(theirs, tmp_path))  # zero: both layouts are the same
    bias = with_key_bias.blocks[0].attn.qkv.bias.chunk(3)
    assert torch.equal(bias[0], state['blocks.0.attn.q_bias']) and not bias[1].any()
    assert torch.equal(bias[2], state['blocks.0.attn.v_bias'])

    theirs['backbone.layers.0.attn.qkv.bias'][64:128] = 1.0
    path = save(theirs, tmp_path)
    load_checkpoint(with_key_bias, path)
    assert with_key_bias.blocks[0].attn.qkv.bias[64] == 1.0
    with pytest.raises(CheckpointError, match="trained key bias.*qkv_bias='qkv'"):
        load_checkpoint(trunk('tiny'), path)


@pytest.mark.parametrize(
    'damage, message',
    [
        (lambda s: s.pop('blocks.1.norm2.bias'), r'missing blocks\.1\.norm2\.bias'),
        (
            lambda s: s.update({'blocks.0.norm1.weigth': torch.ones(64)}),
            r'unexpected blocks\.0\.norm1\.weigth \(close to blocks\.0\.norm1\.weight\)',
        ),
        (
            lambda s: s.update({'cls_token': torch.ones(1, 1, 63)}),
            r'cls_token is \(1, 1, 63\) in the file and \(1, 1, 64\) in the model',
        ),
        (
            lambda s: s.update({'fc_norm.bias': torch.ones(64, dtype=torch.int64)}),
            r'fc_norm\.bias is torch\.int64 in the file',
        ),
        (
            lambda s: s.update({'patch_embed.proj.weight': torch.ones(64, 4, 14, 14)}),
            r'patch_embed\.proj\.weight is \(64, 4, 14, 14\)',
        ),
        (
            lambda s: s.update({'blocks.2.norm1.weight': torch.ones(64)}),
            r'width 64 with 3 blocks, the model has width 64 with 2 blocks',
        ),
    ],
)
def test_what_no_rule_explains_is_an_error_and_changes_nothing(
    damage: object, message: str, tmp_path: Path
) -> None:
    state = canonical('tiny')
    damage(state)
    model = trunk('tiny')
    before = snapshot(model)
    path = save(state, tmp_path)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(model, path)
    assert str(path) in str(error.value)
    assert unchanged(model, before)


def test_partial_loading_takes_the_rest_and_lists_what_it_left(tmp_path: Path) -> None:
    state = canonical('tiny')
    del state['blocks.1.norm2.bias']
    state |= {'blocks.0.extra': torch.ones(1), 'cls_token': torch.ones(1, 1, 63)}
    model = trunk('tiny')
    report = load_checkpoint(model, save(state, tmp_path), allow_partial=True)
    assert torch.equal(model.pos_embed, state['pos_embed'])
    assert len(report.unexplained) == 3
    assert rules(report.missing) == {
        'blocks.1.norm2.bias': 'allow-partial',
        'cls_token': 'allow-partial',
    }


def test_another_architecture_is_named(tmp_path: Path) -> None:
    other = EVAViT(dict(embed_dims=32, depth=3, num_heads=2), img_size=56)
    message = 'width 64 with 2 blocks, the model has width 32 with 3'
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(other, save(canonical('tiny'), tmp_path))


def test_models_and_files_without_a_trunk(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='it holds no EVA trunk.*found fc.weight'):
        load_checkpoint(trunk('tiny'), save({'fc.weight': torch.ones(1)}, tmp_path))
    with pytest.raises(CheckpointError, match='the model holds no EVA trunk'):
        load_checkpoint(nn.Linear(2, 2), save(canonical('tiny'), tmp_path))


def test_model_on_the_meta_device(tmp_path: Path) -> None:
    with torch.device('meta'):
        model = trunk('tiny')
    with pytest.raises(CheckpointError, match='meta device'):
        load_checkpoint(model, save(canonical('tiny'), tmp_path))


def test_report_says_it_all_in_a_few_lines(tmp_path: Path) -> None:
    state = from_evamm(canonical('base', 'mim', img_size=112), 'official', head_dims=HEAD_DIMS)
    report = load_checkpoint(Model(trunk('base'), 5), save({'module': state}, tmp_path))
    text = str(report)
    assert '(official, entry module): 36 tensors loaded' in text
    assert 'resized   backbone.pos_embed  1x65x64 -> 1x17x64  [bicubic position embedding]' in text
    assert 'and 3 more  [rope-tables: RoPE is computed from the grid]' in text
    assert 'missing   head.fc.weight, head.fc.bias  [no-head' in text
    assert len(text.splitlines()) < 8


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_weights_that_are_no_numbers_are_named(bad: float, tmp_path: Path) -> None:
    state = canonical('tiny', dtype=torch.float16)
    state['blocks.1.mlp.w3.weight'][3, 4] = bad
    model = trunk('tiny')
    with pytest.warns(UserWarning, match=r'1 tensors hold NaN or .*blocks\.1\.mlp\.w3\.weight'):
        report = load_checkpoint(model, save(state, tmp_path))
    assert report.not_finite == ['blocks.1.mlp.w3.weight']
    assert 'NOT FINITE  blocks.1.mlp.w3.weight' in str(report)


def test_sound_weights_are_not_mentioned(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        report = load_checkpoint(trunk('tiny'), save(canonical('tiny'), tmp_path))
    assert not report.not_finite and 'FINITE' not in str(report)


def test_options_that_do_not_exist(tmp_path: Path) -> None:
    """A slip in init_cfg is answered with the options there are."""
    options = dict(type='Pretrained', checkpoint=str(save(canonical('tiny'), tmp_path)))
    model = trunk('tiny', init_cfg=dict(options, prefer_emma=False))
    message = r'EVAViT: init_cfg: prefer_emma \(close to prefer_ema\) is no option.*mim_norm'
    with pytest.raises(CheckpointError, match=message):
        model.init_weights()
    model = trunk('tiny', init_cfg=dict(type='Pretrained'))
    with pytest.raises(CheckpointError, match='checkpoint=None: expected the path'):
        model.init_weights()
