"""Trunk and pyramid of a detector give the official detectors' numbers and gradients."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from evamm.checkpoints import load_checkpoint
from evamm.models import EVAViT, SimpleFeaturePyramid
from evamm.models.layers import LayerNorm2d, relative_position

from . import formula
from .common import TOLERANCE, relative_error

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden'
CASES = json.loads((GOLDEN / 'detector_trunk_cases.json').read_text())
OFFICIAL = load_file(GOLDEN / 'detector_trunk.safetensors')
RULES = {'vitdet': 'linear', 'beit': 'geometric'}
EVA01 = [name for name in CASES if name.startswith('eva01')]

# The weights of the formula fill the RoPE tables too, which no loader may use.
pytestmark = pytest.mark.filterwarnings('ignore:.*hold other angles')


class Detector(nn.Module):
    """The two parts under the names that a detector gives them."""

    def __init__(self, backbone: EVAViT, neck: SimpleFeaturePyramid) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        (featmap,) = self.backbone(image)
        names = ('p2', 'p3', 'p4', 'p5', 'p6')
        return dict(zip(names, self.neck((featmap,)), strict=True), featmap=featmap)


def official_state(name: str) -> dict[str, Tensor]:
    return formula.state_dict(CASES[CASES[name].get('weights_of', name)]['state'])


def build(name: str, folder: Path) -> Detector:
    """The model of a case with its weights, read from a file as official training leaves it."""
    kwargs = CASES[name]['kwargs']
    dims = kwargs['embed_dim']
    arch = dict(embed_dims=dims, depth=kwargs['depth'], num_heads=kwargs['num_heads'])
    if name in EVA01:
        arch |= dict(ffn_hidden_dims=4 * dims, ffn='mlp', rope=False)
    trunk = EVAViT(
        dict(arch, ffn_norm=name not in EVA01),
        img_size=kwargs['img_size'],
        pretrain_img_size=kwargs['pretrain_img_size'],
        patch_size=16,
        out_type='featmap',
        final_norm=False,
        with_cls_token=False,
        layer_scale=1.0 if kwargs.get('beit_like_gamma') else None,
        window_size=kwargs['window_size'],
        window_blocks=kwargs['window_block_indexes'],
        relative_position=kwargs.get('use_rel_pos', False),
        relative_position_resize=RULES[kwargs.get('interp_type', 'vitdet')],
    )
    model = Detector(trunk, SimpleFeaturePyramid(dims, CASES[name]['out_channels']))
    path = folder / 'model_final.pth'
    torch.save({'model': {f'backbone.{k}': v for k, v in official_state(name).items()}}, path)
    report = load_checkpoint(model, path)
    assert not report.missing and not report.resized
    assert {rule for _, rule, _ in report.dropped} <= {'rope-tables'}
    return model.eval()


def our_name(name: str) -> str:
    """Name here of a parameter of the official detector."""
    if name.startswith('net.'):
        return name.replace('net.', 'backbone.').replace('mlp.ffn_ln', 'mlp.norm')
    stage, index, rest = name.split('.', 2)
    level, index = int(stage[-1]) - 2, int(index)
    resizes = (4, 1, 0, 1)[level]
    if index < resizes:
        return f'neck.levels.{level}.resize.{index}.{rest}'
    part = ('lateral', 'output')[index - resizes]
    return f'neck.levels.{level}.{part}.{rest if rest.startswith("norm.") else "conv." + rest}'


def errors(name: str, model: Detector) -> dict[str, float]:
    """Relative errors of all maps and of the gradients of a sum over the pyramid."""
    dtype = model.backbone.pos_embed.dtype
    found = model(formula.uniform('image', tuple(CASES[name]['image'])).to(dtype))
    loss = sum(
        (value * formula.uniform(level, tuple(value.shape))).sum()
        for level, value in found.items()
        if level != 'featmap'
    )
    loss.backward()
    params = dict(model.named_parameters())
    grads = {f'grad.{key}': params[our_name(key)].grad for key in CASES[name]['grads']}
    assert sorted(found) == sorted(CASES[name]['outputs'])
    return {
        key: relative_error(value.detach(), OFFICIAL[f'{name}.{key}'])
        for key, value in {**found, **grads}.items()
    }


# The official numbers were computed in float64 and stored in float32. In float32, norms over the
# four channels of this pyramid magnify the rounding of the gradients.
PRECISIONS = {torch.float64: (2e-7, 2e-7), torch.float32: (2 * TOLERANCE, 20 * TOLERANCE)}


def check(name: str, folder: Path, dtype: torch.dtype) -> None:
    of_map, of_gradient = PRECISIONS[dtype]
    for key, value in errors(name, build(name, folder).to(dtype)).items():
        assert value < (of_gradient if key.startswith('grad') else of_map), (key, value)


@pytest.mark.parametrize('dtype', PRECISIONS)
@pytest.mark.parametrize('name', CASES)
def test_maps_pyramid_and_gradients(name: str, tmp_path: Path, dtype: torch.dtype) -> None:
    check(name, tmp_path, dtype)


@pytest.mark.parametrize('dtype', PRECISIONS)
@pytest.mark.parametrize('name', EVA01)
def test_longer_queries_and_keys_in_place_of_a_matrix(
    name: str, tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relative_position, '_MAX_MATRIX', 0)
    check(name, tmp_path, dtype)


def test_resized_tables_are_trained() -> None:
    """The official code cuts their gradient under ``beit``; a fine-tuning run would not learn."""
    trunk = EVAViT(
        dict(embed_dims=16, depth=1, num_heads=2, ffn='mlp', rope=False),
        img_size=64,
        patch_size=16,
        out_type='featmap',
        with_cls_token=False,
        relative_position=True,
        relative_position_resize='geometric',
    )
    trunk.init_weights()
    trunk(torch.randn(1, 3, 96, 96))[0].square().sum().backward()
    assert trunk.blocks[0].attn.rel_pos_h.grad.any()


# The golden tensors notice every mistake below.


def _scaled_queries(model: Detector, patch: pytest.MonkeyPatch) -> None:
    logits = relative_position.position_logits
    scaled = lambda q, *args: logits(q * q.shape[-1] ** -0.5, *args)  # noqa: E731
    patch.setattr('evamm.models.layers.attention.position_logits', scaled)


def _keys_minus_queries(model: Detector, patch: pytest.MonkeyPatch) -> None:
    for name, table in model.named_parameters():
        if 'rel_pos' in name:
            table.data = table.data.flip(0)


def _rows_for_columns(model: Detector, patch: pytest.MonkeyPatch) -> None:
    for block in model.backbone.blocks:
        attn = block.attn
        attn.rel_pos_h, attn.rel_pos_w = attn.rel_pos_w, attn.rel_pos_h


def _other_rule(model: Detector, patch: pytest.MonkeyPatch) -> None:
    trunk = model.backbone
    rules = {'linear': 'geometric', 'geometric': 'linear'}
    trunk.relative_position_resize = rules[trunk.relative_position_resize]


def _eps_of_pytorch(model: Detector, patch: pytest.MonkeyPatch) -> None:
    for module in model.modules():
        if isinstance(module, LayerNorm2d):
            module.eps = 1e-5


def _class_row_first(model: Detector, patch: pytest.MonkeyPatch) -> None:
    table = model.backbone.pos_embed
    table.data = table.data.roll(1, dims=1)


MISTAKES = {
    'scaled queries': (_scaled_queries, EVA01),
    'direction': (_keys_minus_queries, EVA01),
    'axes': (_rows_for_columns, EVA01),
    'rule': (_other_rule, ['eva01_linear', 'eva01_geometric']),
    'eps of the pyramid': (_eps_of_pytorch, ['eva01', 'eva02']),
    'class row': (_class_row_first, ['eva01', 'eva02']),
}


@pytest.mark.parametrize(
    'mistake, name', [(mistake, name) for mistake, (_, names) in MISTAKES.items() for name in names]
)
def test_notices(mistake: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name, tmp_path).double()
    MISTAKES[mistake][0](model, monkeypatch)
    found = errors(name, model)
    assert min(found[level] for level in ('p2', 'p3', 'p4', 'p5', 'p6')) > 1e-5
