"""Image-text pairs give the official code's features and logits (tests/data/golden)."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from evamm.checkpoints import from_evamm, load_checkpoint, to_evamm
from evamm.models.clip import EVACLIP

from . import formula
from .common import TOLERANCE, relative_error

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden'
CASES = json.loads((GOLDEN / 'clip_cases.json').read_text())
OFFICIAL = load_file(GOLDEN / 'clip.safetensors')

_SUB_LN = dict(embed_dims=64, depth=2, num_heads=2, ffn_norm=True, attn_norm=True)
ARCHS = {
    'pair_g': dict(embed_dims=88, depth=2, num_heads=2, ffn='mlp', ffn_hidden_dims=384, rope=False),
    'pair_b': _SUB_LN,
    'pair_l': _SUB_LN,
    'pair_l_336': _SUB_LN,
    'pair_e': dict(
        embed_dims=84,
        depth=2,
        num_heads=3,
        ffn='mlp',
        ffn_hidden_dims=720,
        post_norm=True,
        rope=False,
    ),
}


def build(name: str) -> EVACLIP:
    cfg = CASES[name]['cfg']
    vision, text = cfg['vision_cfg'], cfg['text_cfg']
    return EVACLIP(
        backbone=dict(
            type='evamm.EVAViT',
            arch=ARCHS[name],
            img_size=vision['image_size'],
            patch_size=vision['patch_size'],
            out_type='cls_token',
        ),
        text=dict(
            type='evamm.CLIPTextTransformer',
            arch=dict(width=text['width'], depth=text['layers'], num_heads=text['heads']),
            context_length=text['context_length'],
            vocab_size=text['vocab_size'],
        ),
        embed_dims=cfg['embed_dim'],
    ).eval()


def official_file(name: str, folder: Path) -> Path:
    """The weights of a case as the official training code writes them."""
    shapes = CASES[CASES[name].get('weights_of', name)]['state']
    path = folder / f'{name}.pt'
    torch.save({'module': formula.state_dict(shapes)}, path)
    return path


@torch.no_grad()
def errors(name: str, model: EVACLIP) -> dict[str, float]:
    text = CASES[name]['cfg']['text_cfg']
    image = formula.uniform('image', tuple(CASES[name]['image']))
    tokens = formula.captions(4, text['context_length'], text['vocab_size'])
    images, texts = model.encode_image(image), model.encode_text(tokens)
    cosines = F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).t()
    found = {'image': images, 'text': texts, 'logits': model.logit_scale.exp() * cosines}
    return {key: relative_error(value, OFFICIAL[f'{name}.{key}']) for key, value in found.items()}


@pytest.mark.parametrize('name', CASES)
def test_pair(name: str, tmp_path: Path) -> None:
    """Every tensor of the file has its place; the 336-pixel pair starts from the other one."""
    model = build(name)
    report = load_checkpoint(model, official_file(name, tmp_path), complete=True)
    assert report.dialect == 'official'
    assert {rule for _, rule, _ in report.dropped} <= {'rope-tables'}
    resized = ['backbone.pos_embed'] if name == 'pair_l_336' else []
    assert [entry[0] for entry in report.resized] == resized
    for output, value in errors(name, model).items():
        assert value < TOLERANCE, output


@pytest.mark.parametrize('name', [name for name in CASES if 'state' in CASES[name]])
def test_export_has_the_official_names(name: str) -> None:
    """Every tensor of the official model, RoPE tables of its grid included."""
    state = formula.state_dict(CASES[name]['state'])
    head_dims = ARCHS[name]['embed_dims'] // ARCHS[name]['num_heads']
    written = from_evamm(to_evamm(state), 'official', head_dims=head_dims)
    assert {key: list(value.shape) for key, value in written.items()} == CASES[name]['state']
    assert all(
        torch.equal(value, state[key]) for key, value in written.items() if 'rope' not in key
    )


# ---- the comparison notices the mistakes that a text tower invites ------------------------------


def _norms_with_vision_eps(model: EVACLIP, patch: pytest.MonkeyPatch) -> None:
    for module in model.text.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6


def _norms_with_text_eps(model: EVACLIP, patch: pytest.MonkeyPatch) -> None:
    for module in model.backbone.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5


def _quick_gelu(model: EVACLIP, patch: pytest.MonkeyPatch) -> None:
    """What OpenAI's text towers were trained with."""
    patch.setattr(F, 'gelu', lambda x, **kwargs: x * torch.sigmoid(1.702 * x))


def _sees_the_future(model: EVACLIP, patch: pytest.MonkeyPatch) -> None:
    attention = F.scaled_dot_product_attention

    def everywhere(*args: Tensor, **kwargs: object) -> Tensor:
        return attention(*args, **{**kwargs, 'is_causal': False, 'attn_mask': None})

    patch.setattr(F, 'scaled_dot_product_attention', everywhere)


def _pools_at_the_end(model: EVACLIP, patch: pytest.MonkeyPatch) -> None:
    argmax = Tensor.argmax
    patch.setattr(
        Tensor, 'argmax', lambda x, dim=None: torch.full_like(argmax(x, dim=dim), x.shape[-1] - 1)
    )


def _no_projection_bias(model: EVACLIP, patch: pytest.MonkeyPatch) -> None:
    model.head.bias.data.zero_()


def _mean_of_patches(model: EVACLIP, patch: pytest.MonkeyPatch) -> None:
    model.backbone.out_type = 'avg_featmap'


MISTAKES: dict[str, tuple[Callable, str]] = {
    'text eps': (_norms_with_vision_eps, 'text'),
    'vision eps': (_norms_with_text_eps, 'image'),
    'gelu': (_quick_gelu, 'text'),
    'causal mask': (_sees_the_future, 'text'),
    'pooling': (_pools_at_the_end, 'text'),
    'bias': (_no_projection_bias, 'image'),
    'class token': (_mean_of_patches, 'image'),
}


@pytest.mark.parametrize('name', ['pair_g', 'pair_b'])
@pytest.mark.parametrize('mistake', MISTAKES)
def test_notices(mistake: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name)
    load_checkpoint(model, official_file(name, tmp_path))
    change, output = MISTAKES[mistake]
    change(model, monkeypatch)
    assert errors(name, model)[output] > TOLERANCE
