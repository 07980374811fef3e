"""Memory and time of detectors: counted without memory, at full size."""

import importlib
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch._subclasses.fake_tensor import FakeTensorMode

from evamm.models.backbones import EVAViT

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / 'configs/eva02_det/cascade_mask_rcnn_eva02_base_p16_1024_8xb16_coco.py'
RATE = dict(rate=790e12, mfu=0.35)


@pytest.fixture(scope='module')
def tools():
    sys.path.insert(0, str(ROOT / 'tools' / 'analysis_tools'))
    yield importlib.import_module('kept_bytes'), importlib.import_module('plan_run')
    sys.path.pop(0)


@pytest.fixture(scope='module')
def base(tools):
    return tools[1].Recipe.from_config(BASE)


def test_counting_kept_bytes(tools):
    """A product keeps its input, a norm its input and two numbers of every row."""
    count = tools[0].kept_bytes
    with FakeTensorMode():
        product, norm = torch.nn.Linear(8, 6, bias=False), torch.nn.LayerNorm(6)
        x = torch.empty(5, 8, requires_grad=True)
        assert count(product, x, owned=product)[0] == 5 * 8 * 4
        both = torch.nn.Sequential(product, norm)
        assert count(both, x, owned=both)[0] == (5 * 8 + 5 * 6 + 2 * 5) * 4
        with tools[0].cuda_autocast():
            kept, y = count(both, x, owned=both)
            one, _ = tools[0].kept_bytes_of_one(both, x, owned=both)
        # Copies of the input and of the weight in half precision; the norm's input is float32.
        expected = 5 * 8 * 2 + (5 * 6 + 2 * 5) * 4
        assert (kept, y.dtype) == (expected + 6 * 8 * 2, torch.float32)
        assert one == expected


@pytest.mark.parametrize(
    ('arch', 'pixels', 'window', 'blocks'),
    [('eva02-base', 1024, 16, 12), ('eva02-large', 1536, 32, 4)],
)
def test_formula_of_the_trunk_is_what_torch_keeps(tools, arch, pixels, window, blocks):
    count, tool = tools[0].kept_bytes_of_one, tools[1]
    fields = vars(tool.resolve_arch(arch)) | {'depth': blocks}
    with torch.device('meta'):
        trunk = EVAViT(
            fields,
            img_size=pixels,
            pretrain_img_size=224,
            patch_size=16,
            with_cls_token=False,
            out_type='featmap',
            final_norm=False,
            window_size=window,
            window_blocks=range(blocks - 1),
        )
    with FakeTensorMode(allow_non_fake_inputs=True):
        trunk.to_empty(device='cpu').train()
        with tools[0].cuda_autocast():
            kept, _ = count(trunk, torch.empty(1, 3, pixels, pixels), owned=trunk)
    expected = blocks * tool.saved_bytes(tool.resolve_arch(arch), (pixels // 16) ** 2)
    assert kept == pytest.approx(expected, rel=0.05)


def test_numbers_of_a_recipe(base):
    assert (base.tokens, base.params, base.total_batch) == (64**2, 141_120_542, 128)
    assert base.images == 60_000 * 128
    assert not base.averaged and not base.recomputes and not base.positions
    # 512 boxes in three stages, 128 masks: float32, in and between four convolutions.
    boxes, masks = 3 * 512 * 7**2 * 256, 128 * 14**2 * 256
    assert 4 * 6 * (boxes + masks) < base.heads.head_bytes < 4 * 20 * (boxes + masks)
    assert base.heads.pyramid_macs == 71_672_266_752


def test_base_trains_at_1024_pixels_on_one_card_of_24_gb(base):
    plain = base.plan(1, 24, **RATE)
    cheap = replace(base, recomputes=True).plan(1, 24, **RATE)
    assert (plain.batch_size, plain.accumulation) == (4, 32)
    assert (cheap.batch_size, cheap.accumulation) == (8, 16)
    for plan in (plain, cheap):
        assert plan.states + plan.activations < 0.85 * 24 * 2**30
        # 12 tests and checkpoints, as in the recipe.
        for key, steps in (
            ('train_cfg.max_iters', 60_000),
            ('train_cfg.val_interval', 5000),
            ('default_hooks.checkpoint.interval', 5000),
        ):
            assert f'{key}={steps * plan.accumulation}' in plan.command.split()
    assert 'interval' not in (whole := base.plan(8, 80, **RATE)).command
    assert whole.accumulation == 1  # as its name says
    page = (ROOT / 'docs/en/detection_recipes.md').read_text()
    shown = re.search(r'tools/train.py \$CONFIG --cfg-options (.*?)\n```', page, re.DOTALL)[1]
    shown = set(shown.replace('\\\n', ' ').split())
    assert shown == {*cheap.command.split(), 'model.backbone.with_cp=True'}
    # Recomputing costs one more pass of the trunk, none of the heads.
    more = replace(base, recomputes=True).flops(1) - base.flops(1)
    assert more == pytest.approx(2 * base.macs * base.images)


def test_what_counts_epochs_stays(tools):
    """And a config that accumulates already counts its own iterations."""
    config = Config.fromfile(BASE)
    config.merge_from_dict(
        {
            'optim_wrapper.accumulative_counts': 4,
            'train_cfg': dict(max_iters=240_000, val_interval=20_000),
            'default_hooks.checkpoint.by_epoch': True,
        }
    )
    assert tools[1]._steps(config) == (
        ('train_cfg.max_iters', 60_000),
        ('train_cfg.val_interval', 5000),
    )
    config.train_cfg.by_epoch = True
    assert tools[1]._steps(config) == ()


def test_relative_positions_cost_what_their_attention_adds(tools):
    arch = tools[1].resolve_arch('eva-giant')
    # 1.3 GB would be the matrix of all pairs at 1280 pixels.
    assert tools[0].position_bytes(arch, (80, 80), 0) == 2 * 16 * 6400 * 4 * 160
    assert tools[0].position_bytes(arch, (80, 80), 16) == 2 * 16 * 25 * 256**2


def test_the_split_in_the_name_of_a_config_fits_its_cards(tools):
    """40 GB for EVA-01, whose official runs are known; 80 GB for EVA-02."""
    name = 'cascade_mask_rcnn_eva_giant_p16_o365_1280_64xb1_coco'
    giant = tools[1].Recipe.from_config(ROOT / 'configs/eva_det' / f'{name}.py')
    assert giant.recomputes and len(giant.positions) == 40
    plan = giant.plan(64, 40, **RATE)
    assert (plan.batch_size, plan.sharded) == (1, False)
