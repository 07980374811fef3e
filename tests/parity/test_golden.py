"""The trunk and the checkpoint reader give the official code's numbers (tests/data/golden)."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from evamm.checkpoints import load_checkpoint, resize_patch_kernel, resize_pos_embed, to_evamm
from evamm.models.backbones import EVAViT, eva_vit

from . import formula
from .common import TOLERANCE, Classifier, pooling_norm, relative_error

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden'
CASES = json.loads((GOLDEN / 'cases.json').read_text())
OFFICIAL = load_file(GOLDEN / 'official.safetensors')

_MLP = dict(embed_dims=48, depth=2, num_heads=3, ffn_hidden_dims=209, ffn='mlp', rope=False)
_SMALL = dict(embed_dims=48, depth=2, num_heads=3)
_BASE = dict(embed_dims=64, depth=2, num_heads=2, ffn_norm=True)  # hidden width left to evamm
FAMILIES = {
    'eva01': _MLP,
    'eva_l': dict(_MLP, ffn_hidden_dims=192, qkv_bias='qkv'),
    'eva02_s': _SMALL,
    'eva02_b': _BASE,
    'clip_g': _MLP,
    'clip_e': dict(_MLP, post_norm=True),
    'clip_b': dict(_BASE, attn_norm=True),
    'det_b': dict(_BASE, depth=3),
}
CLASSIFIERS = [name for name, case in CASES.items() if 'logits' in case['outputs']]
RESIZED = [name for name in CLASSIFIERS if 'weights_of' in CASES[name]]
MIM = [name for name, case in CASES.items() if 'lm' in case['outputs']]


def arch(name: str) -> dict:
    return next(arch for family, arch in FAMILIES.items() if name.startswith(family))


def official_state(name: str) -> dict[str, Tensor]:
    state = formula.state_dict(CASES[name]['state'])
    if name == 'eva_l_mae':  # sin-cos: a fixed table, not a weight
        state['pos_embed'] = OFFICIAL[f'{name}.pos_embed']
    return state


def official_file(name: str, folder: Path) -> Path:
    """The weights of a case in a file as the official training code leaves it."""
    state = official_state(name)
    if name.startswith('clip'):
        state = {f'visual.{key}': value for key, value in state.items()}
    path = folder / f'{name}.pt'
    torch.save(state if name.startswith('clip') else {'module': state}, path)
    return path


def image(name: str) -> Tensor:
    return formula.uniform('image', tuple(CASES[name]['image']))


def build_classifier(name: str, img_size: int) -> Classifier:
    case = CASES[name]
    scale = 1.0 if 'blocks.0.gamma_1' in case['state'] else None
    pooled = 'fc_norm.weight' in case['state']
    trunk = EVAViT(
        arch(name),
        img_size=img_size,
        patch_size=case['kwargs']['patch_size'],
        out_type='avg_featmap' if pooled else 'cls_token',
        layer_scale=scale,
    )
    return Classifier(trunk, case['kwargs']['num_classes']).eval()


def error(name: str, output: str, found: Tensor) -> float:
    return relative_error(found, OFFICIAL[f'{name}.{output}'])


@torch.no_grad()
def classifier_errors(name: str, model: Classifier) -> dict[str, float]:
    found = model(image(name))
    if 'patches' in CASES[name]['outputs']:
        found['patches'] = pooling_norm(model.backbone)(found['tokens'][:, 1:])
    assert sorted(found) == CASES[name]['outputs']
    return {output: error(name, output, value) for output, value in found.items()}


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifier(name: str, tmp_path: Path) -> None:
    """Built at the size of the case; a file made for another size is resized while loading."""
    model = build_classifier(name, CASES[name]['kwargs']['img_size'])
    report = load_checkpoint(model, official_file(name, tmp_path))
    assert not report.missing
    for output, value in classifier_errors(name, model).items():
        assert value < TOLERANCE, output


@pytest.mark.parametrize('name', [n for n in RESIZED if n != 'clip_b_larger'])
def test_size_changed_at_call_time(name: str, tmp_path: Path) -> None:
    """Built and loaded at the size of the file, then called with larger images."""
    model = build_classifier(name, CASES[CASES[name]['weights_of']]['kwargs']['img_size'])
    load_checkpoint(model, official_file(name, tmp_path))
    for output, value in classifier_errors(name, model).items():
        assert value < TOLERANCE, output


@torch.no_grad()
def mim_errors(name: str, trunk: EVAViT) -> dict[str, float]:
    pixels = image(name)
    patches = (pixels.shape[-1] // trunk.patch_size) ** 2
    mask = formula.uniform('mask', (pixels.shape[0], patches)) > 0.4
    (tokens,) = trunk(pixels, mask)
    head = to_evamm(official_state(name))
    found = F.linear(tokens[:, 1:][mask], head['lm_head.weight'], head['lm_head.bias'])
    return {'norm': error(name, 'norm', tokens), 'lm': error(name, 'lm', found)}


def build_mim(name: str, folder: Path) -> EVAViT:
    kwargs = CASES[name]['kwargs']
    trunk = EVAViT(
        arch(name),
        img_size=kwargs['img_size'],
        patch_size=kwargs['patch_size'],
        out_type='raw',
        with_mask_token=True,
    ).eval()
    load_checkpoint(trunk, official_file(name, folder))
    return trunk


@pytest.mark.parametrize('name', MIM)
def test_masked_image_modelling(name: str, tmp_path: Path) -> None:
    for output, value in mim_errors(name, build_mim(name, tmp_path)).items():
        assert value < TOLERANCE, output


def test_mae_encoder(tmp_path: Path) -> None:
    """EVA-L as pre-trained: the decoder in the file is no part of the trunk."""
    trunk = EVAViT(arch('eva_l'), img_size=56, patch_size=14, out_type='raw').eval()
    load_checkpoint(trunk, official_file('eva_l_mae', tmp_path))
    with torch.no_grad():
        (tokens,) = trunk(image('eva_l_mae'))
    assert error('eva_l_mae', 'norm', tokens) < TOLERANCE


def build_detector(name: str, folder: Path) -> EVAViT:
    kwargs = CASES[name]['kwargs']
    trunk = EVAViT(
        arch(name),
        img_size=kwargs['pretrain_img_size'],
        patch_size=kwargs['patch_size'],
        out_type='featmap',
        final_norm=False,
        with_cls_token=False,
        window_size=kwargs['window_size'],
        window_blocks=kwargs['window_block_indexes'],
    ).eval()
    state = {f'backbone.net.{key}': value for key, value in official_state(name).items()}
    torch.save({'model': state}, folder / f'{name}.pth')
    load_checkpoint(trunk, folder / f'{name}.pth')
    return trunk


@torch.no_grad()
def detector_errors(name: str, trunk: EVAViT) -> dict[str, float]:
    return {'featmap': error(name, 'featmap', trunk(image(name))[0])}


@pytest.mark.parametrize('name', ['det_b', 'det_b_padded'])
def test_detector_backbone(name: str, tmp_path: Path) -> None:
    assert detector_errors(name, build_detector(name, tmp_path))['featmap'] < TOLERANCE


def test_patch_14_to_16() -> None:
    state = formula.state_dict(CASES['p14to16']['state'])
    kernel = resize_patch_kernel(state['patch_embed.proj.weight'], 16)
    pos_embed = resize_pos_embed(state['pos_embed'], target_grid=(14, 14))
    assert error('p14to16', 'patch_embed.proj.weight', kernel) < 1e-6
    assert error('p14to16', 'pos_embed', pos_embed) < 1e-6


@pytest.mark.parametrize('name', ['pos_up', 'pos_down', 'pos_odd'])
def test_pos_embed_resize(name: str) -> None:
    pos_embed = formula.state_dict(CASES[name]['state'])['pos_embed']
    found = resize_pos_embed(pos_embed, target_grid=tuple(CASES[name]['grid']))
    assert error(name, 'pos_embed', found) < 1e-6


# The golden tensors notice every mistake below.


def _norms_with_default_eps(trunk: EVAViT, patch: pytest.MonkeyPatch) -> None:
    for module in trunk.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def _replace_table(change: Callable, trunk: EVAViT, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(eva_vit, 'rope_table', partial(change, eva_vit.rope_table))


def _rope_reference_14(table: Callable, *args, **kwargs) -> Tensor:
    return table(*args, **dict(kwargs, reference=14))


def _rope_columns_first(table: Callable, *args, **kwargs) -> Tensor:
    rows, cols = table(*args, **kwargs).chunk(2, dim=1)
    return torch.cat((cols, rows), dim=1)


def _rope_turned_backwards(table: Callable, *args, **kwargs) -> Tensor:
    return table(*args, **kwargs) * torch.tensor([1.0, -1.0])


def _rope_turns_class_token(table: Callable, *args, **kwargs) -> Tensor:
    return table(*args, **kwargs).roll(-1, dims=0)


def _swap_gate(trunk: EVAViT, patch: pytest.MonkeyPatch) -> None:
    for block in trunk.blocks:
        for param in block.mlp.w12.parameters():
            param.data = torch.cat(param.data.chunk(2)[::-1])


def _pool_with_class_token(trunk: EVAViT, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(trunk, '_format', lambda x, grid: trunk.fc_norm(x.mean(dim=1)))


def _no_q_bias(trunk: EVAViT, patch: pytest.MonkeyPatch) -> None:
    for block in trunk.blocks:
        block.attn.q_bias.data.zero_()


def _no_inner_norm(trunk: EVAViT, patch: pytest.MonkeyPatch) -> None:
    for block in trunk.blocks:
        block.attn.norm = nn.Identity()


def _pre_norm(trunk: EVAViT, patch: pytest.MonkeyPatch) -> None:
    for block in trunk.blocks:
        block.post_norm = False


def _tanh_gelu(trunk: EVAViT, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(F, 'gelu', partial(F.gelu, approximate='tanh'))


MISTAKES = {
    'eps': (_norms_with_default_eps, ['eva01', 'eva_l', 'eva02_s', 'eva02_b', 'clip_g', 'clip_b']),
    'reference': (partial(_replace_table, _rope_reference_14), ['eva02_s', 'eva02_b', 'clip_b']),
    'axes': (partial(_replace_table, _rope_columns_first), ['eva02_s', 'eva02_b', 'clip_b']),
    'direction': (
        partial(_replace_table, _rope_turned_backwards),
        ['eva02_s', 'eva02_b', 'clip_b'],
    ),
    'class token turned': (partial(_replace_table, _rope_turns_class_token), ['eva02_s', 'clip_b']),
    'gate': (_swap_gate, ['eva02_s', 'eva02_b', 'clip_b']),
    'pooling': (_pool_with_class_token, ['eva01', 'eva_l', 'eva02_s', 'eva02_b']),
    'q bias': (_no_q_bias, ['eva01', 'eva02_s', 'eva02_b', 'clip_g', 'clip_e', 'clip_b']),
    'inner norm': (_no_inner_norm, ['clip_b']),
    'norm order': (_pre_norm, ['clip_e', 'clip_e_layer_scale']),
    'gelu': (_tanh_gelu, ['eva01', 'eva_l', 'clip_g', 'clip_e']),
}


def test_notices_window_coordinates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows span the whole reference grid; coordinates in tokens would be wrong."""
    trunk = build_detector('det_b_padded', tmp_path)

    def in_tokens(table: Callable, *grid, **kwargs) -> Tensor:
        return table(*grid, **dict(kwargs, reference=grid[0]))

    _replace_table(in_tokens, trunk, monkeypatch)
    assert detector_errors('det_b_padded', trunk)['featmap'] > TOLERANCE


@pytest.mark.parametrize(
    'mistake, name', [(mistake, name) for mistake, (_, names) in MISTAKES.items() for name in names]
)
def test_notices(mistake: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_classifier(name, CASES[name]['kwargs']['img_size'])
    load_checkpoint(model, official_file(name, tmp_path))
    MISTAKES[mistake][0](model.backbone, monkeypatch)
    assert classifier_errors(name, model)['logits'] > TOLERANCE
