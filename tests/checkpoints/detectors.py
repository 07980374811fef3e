"""Official detectors: their names and shapes, files like theirs, and small models to load them.

``tests/data/golden/detectron2_names.json`` lists the names and shapes of the official models.
"""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from evamm.checkpoints.rope_buffers import official_rope_tables

from .common import fill

ROOT = Path(__file__).parents[2]
NAMES = json.loads((ROOT / 'tests/data/golden/detectron2_names.json').read_text())
WIDTH, CHANNELS = 64, 16  # of the small detectors


def official_shapes(case: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape; ``#`` stands for the numbers of blocks or stages that follow."""
    shapes = {}
    for name, shape, *numbers in NAMES[case]:
        for part in numbers[0].split(',') if numbers else ['']:
            first, _, last = part.partition('-')
            for number in range(int(first), int(last or first) + 1) if part else ['']:
                shapes[name.replace('#', str(number))] = tuple(shape)
    return shapes


def official_state(case: str, seed: int = 0) -> dict[str, Tensor]:
    """Random weights and true RoPE tables."""
    state = fill(official_shapes(case), seed)
    for name, value in state.items():
        if 'freqs_' in name:
            side = round(len(value) ** 0.5)
            cos, sin = official_rope_tables((side, side), value.shape[1])
            state[name] = (cos if name.endswith('cos') else sin).clone()
    return state


def averaged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``ema_state``: parameters and buffers, shared ones once, also those that are not saved."""
    out = {name: value + 1 for name, value in state.items() if 'freqs' not in name}
    out |= {name: value for name, value in state.items() if '.rope_' in name}
    out |= {'pixel_mean': torch.ones(3, 1, 1), 'pixel_std': torch.ones(3, 1, 1)}
    for level in range(5):
        out[f'proposal_generator.anchor_generator.cell_anchors.{level}'] = torch.ones(3, 4)
    return out


def small_config(case: str, *, classes: int = 5, masks: bool = True) -> ConfigDict:
    """The base config of the recipes with the widths of a small official detector."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/cascade_mask_rcnn_eva.py').model
    arch = dict(embed_dims=WIDTH, depth=2, num_heads=2)
    if case == 'small_eva':
        arch |= dict(ffn='mlp', ffn_hidden_dims=209, rope=False)
    else:
        arch |= dict(ffn_norm=True)
    cfg.backbone.update(arch=arch, img_size=128, window_size=4, window_blocks=[0])
    cfg.backbone.relative_position = case == 'small_eva'
    cfg.data_preprocessor.pad_size = 128
    cfg.neck.update(in_channels=WIDTH, out_channels=CHANNELS)
    cfg.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    narrow = dict(in_channels=CHANNELS, conv_out_channels=CHANNELS, num_classes=classes)
    cfg.roi_head.bbox_head.update(narrow, fc_out_channels=24)
    cfg.roi_head.mask_head.update(narrow)
    if not masks:
        del cfg.roi_head['mask_head']
    return cfg


def small_detector(case: str, *, classes: int = 5, masks: bool = True) -> nn.Module:
    return build(small_config(case, classes=classes, masks=masks))


def build(cfg: ConfigDict) -> nn.Module:
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS as MMDET

    with DefaultScope.overwrite_default_scope('mmdet'):
        return MMDET.build(cfg)


def rules(entries: list[tuple[str, str, str]]) -> dict[str, str]:
    return {name: rule for name, rule, _ in entries}


SMALL = ('small_eva', 'small_eva02_lvis')
