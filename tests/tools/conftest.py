"""A small training project, and tools called inside this process."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from PIL import Image

REPO = Path(__file__).resolve().parents[2]

CONFIG = """
default_scope = 'mmpretrain'
runner_type = 'evamm.EVARunner'
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
    backbone=dict(
        type='evamm.EVAViT',
        arch=dict(embed_dims=32, depth=2, num_heads=2),
        img_size=16, patch_size=8, drop_path_rate=0.1),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=32,
              loss=dict(type='CrossEntropyLoss')))
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='pictures', data_prefix='train',
                 pipeline=pipeline))
val_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root='pictures', data_prefix='val',
                 pipeline=pipeline))
val_evaluator = dict(type='Accuracy', topk=1)
test_dataloader = val_dataloader
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=3)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    type='evamm.AmpOptimWrapper',
    constructor='evamm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9),
    optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.05))
param_scheduler = dict(
    type='evamm.WarmupCosineLR', warmup=1, by_epoch=True, convert_to_iter_based=True)
auto_scale_lr = dict(enable=False, base_batch_size=4)
custom_hooks = [dict(type='evamm.EMAHook', momentum=0.2)]
default_hooks = dict(
    checkpoint=dict(type='evamm.CheckpointHook', interval=3),
    logger=dict(type='LoggerHook', interval=2))
randomness = dict(seed=0)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a config and two classes of pictures, dark and bright."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 6), ('val', 4)):
        for name, level in (('dark', 60), ('bright', 190)):
            folder = tmp_path / 'pictures' / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.normal(level, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f'{index}.png')
    (tmp_path / 'tiny.py').write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tool():
    """Module of a tool, by its name."""

    def load(name):
        path = REPO / f'tools/{name}.py'
        spec = importlib.util.spec_from_file_location(f'evamm_tool_{path.stem}', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def call(tool, monkeypatch):
    """Exit status of a tool run inside this process."""
    from evamm.engine.runner.launch import run_tool

    # It asks compilers and git for their versions, half a second for every runner.
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda self, env_cfg: None)

    def run(name, *args):
        argv = sys.argv
        sys.argv = [f'tools/{name}.py', *map(str, args)]
        try:
            return run_tool(tool(name).main)
        finally:
            sys.argv = argv
            for manager in (MessageHub, MMLogger, Visualizer, DefaultScope):
                manager._instance_dict.clear()

    return run
