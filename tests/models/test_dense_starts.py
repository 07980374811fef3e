"""A file of masked image modelling starts trunks of dense tasks by its path alone."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from torch import Tensor

from evamm.checkpoints import resize_patch_kernel, resize_pos_embed, to_evamm
from evamm.models import EVAPretrainer, EVAViT
from evamm.registry import MODELS
from tests.parity import formula

CASES = json.loads((Path(__file__).parents[1] / 'data/golden/cases.json').read_text())
ARCHS = {
    'eva02_b_mim': dict(embed_dims=64, depth=2, num_heads=2, ffn_norm=True),
    'eva01_mim': dict(
        embed_dims=48, depth=2, num_heads=3, ffn_hidden_dims=209, ffn='mlp', rope=False
    ),
}
DETECTOR = dict(
    img_size=320,
    pretrain_img_size=224,
    patch_size=16,
    out_type='featmap',
    final_norm=False,
    with_cls_token=False,
    window_size=5,
    window_blocks=[0],
)
SEGMENTOR = dict(
    img_size=160, patch_size=16, out_type='featmap', final_norm=False, out_indices=(0, 1)
)
pytestmark = pytest.mark.filterwarnings('ignore:.*hold other angles')


def official_file(name: str, path: Path) -> dict[str, Tensor]:
    """Weights of patches of 14 pixels at 224, under the official names; returns them under ours."""
    shapes = dict(CASES[name]['state'])
    shapes['patch_embed.proj.weight'] = [*shapes['patch_embed.proj.weight'][:2], 14, 14]
    state = formula.state_dict(shapes)
    torch.save({'module': state}, path)
    return to_evamm(state)


def own_file(name: str, path: Path) -> dict[str, Tensor]:
    """What a pre-training run of evamm saves; returns the trunk."""
    torch.manual_seed(0)
    trunk = dict(type='evamm.EVAViT', arch=ARCHS[name], img_size=224, patch_size=14)
    model = EVAPretrainer(trunk, head=dict(out_channels=24))
    with torch.no_grad():
        for param in model.parameters():
            torch.nn.init.normal_(param, std=0.1)
    entries = dict(meta=dict(iter=3), optimizer=dict(state={}, param_groups=[]))
    torch.save({**entries, 'state_dict': model.state_dict()}, path)
    return {name: value.detach() for name, value in model.backbone.state_dict().items()}


def start(options: dict, path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[EVAViT, str]:
    """A trunk as a config makes it, and what was logged."""
    lines = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'handle', lambda r: lines.append(r.msg))
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    trunk = MODELS.build(dict(type='evamm.EVAViT', init_cfg=init_cfg, **options))
    trunk.init_weights()
    return trunk, '\n'.join(lines)


def check_equal(trunk: EVAViT, source: dict[str, Tensor], grid: tuple[int, int]) -> None:
    """Every tensor comes from the file, resized where it must be."""
    for name, value in trunk.state_dict().items():
        if '.rel_pos_' in name:
            assert not value.any(), name
            continue
        expected = source[name]
        if name == 'pos_embed':
            expected = resize_pos_embed(expected, grid)
        elif name == 'patch_embed.proj.weight':
            expected = resize_patch_kernel(expected, 16)
        assert torch.equal(value, expected), name


@pytest.mark.parametrize('write', [official_file, own_file])
@pytest.mark.parametrize('name', ARCHS)
def test_detector(name, write, tmp_path, monkeypatch):
    source = write(name, tmp_path / 'mim.pth')
    relative = name == 'eva01_mim'
    options = dict(DETECTOR, arch=ARCHS[name], relative_position=relative)
    trunk, logged = start(options, tmp_path / 'mim.pth', monkeypatch)
    assert trunk.cls_token is None
    check_equal(trunk, source, (14, 14))
    assert relative == any('rel_pos' in key for key in trunk.state_dict())
    assert relative == ('relative positions start at zero' in logged)
    for words in ('the model runs without a class token', 'the model has no final norm'):
        assert words in logged
    (featmap,) = trunk.eval()(torch.randn(1, 3, 80, 160))
    assert featmap.shape == (1, trunk.embed_dims, 5, 10) and featmap.isfinite().all()


@pytest.mark.parametrize('write', [official_file, own_file])
@pytest.mark.parametrize('name', ARCHS)
def test_segmentor(name, write, tmp_path, monkeypatch):
    source = write(name, tmp_path / 'mim.pth')
    trunk, logged = start(dict(SEGMENTOR, arch=ARCHS[name]), tmp_path / 'mim.pth', monkeypatch)
    check_equal(trunk, source, (10, 10))
    assert 'the model has no final norm' in logged and 'class token' not in logged
    maps = trunk.eval()(torch.randn(1, 3, 160, 160))
    assert [tuple(one.shape) for one in maps] == [(1, trunk.embed_dims, 10, 10)] * 2


def test_relative_positions_count_the_same_from_every_start(tmp_path, monkeypatch):
    """Tables of zeros change nothing: with and without them the first outputs are equal."""
    official_file('eva01_mim', tmp_path / 'mim.pth')
    image, found = torch.randn(1, 3, 160, 160), []
    for relative in (False, True):
        options = dict(DETECTOR, arch=ARCHS['eva01_mim'], relative_position=relative)
        trunk, _ = start(options, tmp_path / 'mim.pth', monkeypatch)
        found.append(trunk.eval()(image)[0])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
