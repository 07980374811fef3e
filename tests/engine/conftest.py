"""A training run small enough for a unit test: 24 points, two classes, a few dozen weights."""

import copy
import functools
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS, DefaultScope
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import Dataset

import evamm.registry  # noqa: F401
from evamm.engine import EVARunner

# For the modules that several tests share.
sys.path.insert(0, str(Path(__file__).parent))


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Points of two classes, the same in every process, with augmentation on request."""

    def __init__(self, length=24, augment=False):
        self.augment = augment
        generator = torch.Generator().manual_seed(0)
        self.points = torch.randn(length, 6, generator=generator)
        self.labels = (self.points.sum(1) > 0).long()
        self.metainfo = {'classes': ('minus', 'plus')}

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        point = self.points[index]
        if self.augment:  # as transforms do: from Python's and from NumPy's generator
            point = point * random.uniform(0.9, 1.1) + np.float32(np.random.normal(0, 0.1))
        return {'inputs': point, 'labels': self.labels[index]}


@MODELS.register_module()
class ToyModel(BaseModel):
    """Draws random numbers in every step (dropout) and keeps a buffer (batch norm)."""

    def __init__(self, norm=True, dropout=0.3):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 8),
            nn.BatchNorm1d(8) if norm else nn.Identity(),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(8, 2),
        )

    def init_weights(self):
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for param in self.parameters():
                param.copy_(torch.randn(param.shape, generator=generator) * 0.3)

    def forward(self, inputs, labels, mode='tensor'):
        logits = self.net(inputs)
        if mode == 'loss':
            return {'loss': nn.functional.cross_entropy(logits, labels)}
        return [{'score': row, 'label': label} for row, label in zip(logits, labels, strict=True)]


@METRICS.register_module()
class ToyScore(BaseMetric):
    """Mean of the first class score: any change of the weights shows in it."""

    def process(self, data_batch, data_samples):
        self.results += [sample['score'][0].item() for sample in data_samples]

    def compute_metrics(self, results):
        return {'score': sum(results) / len(results)}


def _loader(shuffle, batch_size=4):
    return {
        'batch_size': batch_size,
        'num_workers': 0,
        'sampler': {'type': 'DefaultSampler', 'shuffle': shuffle},
        'collate_fn': {'type': 'default_collate'},
        'dataset': {'type': 'ToyDataset', 'augment': shuffle},
    }


@pytest.fixture
def toy_cfg(tmp_path):
    """Two epochs of six iterations, with everything that has a state."""
    return {
        'model': {'type': 'ToyModel'},
        'work_dir': str(tmp_path / 'run'),
        'train_dataloader': _loader(True),
        'val_dataloader': _loader(False),
        'val_evaluator': {'type': 'ToyScore'},
        'train_cfg': {'by_epoch': True, 'max_epochs': 2, 'val_interval': 1},
        'val_cfg': {},
        'optim_wrapper': {
            'type': 'evamm.AmpOptimWrapper',
            'optimizer': {'type': 'AdamW', 'lr': 1e-2, 'weight_decay': 0.05},
        },
        'param_scheduler': {
            'type': 'evamm.WarmupCosineLR',
            'warmup': 1,
            'by_epoch': True,
            'convert_to_iter_based': True,
        },
        'default_hooks': {
            'checkpoint': {'type': 'evamm.CheckpointHook', 'interval': 1},
            'logger': {'type': 'LoggerHook', 'interval': 3},
        },
        'custom_hooks': [{'type': 'evamm.EMAHook', 'momentum': 0.1}],
        'randomness': {'seed': 3},
        'log_level': 'WARNING',
    }


_open_figure = Visualizer._initialize_fig


@functools.cache
def _figure():
    return _open_figure(None, {'frameon': False})


@pytest.fixture
def make_runner(monkeypatch):
    """Build a runner from a config; leaves no global state behind."""
    # It asks compilers and git for their versions, half a second for every runner.
    monkeypatch.setattr(EVARunner, '_log_env', lambda self, env_cfg: None)
    # Formatting the config and opening matplotlib figures take most of the time of a toy run.
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: repr(self._cfg_dict)))
    monkeypatch.setattr(Visualizer, '_initialize_fig', lambda self, cfg: _figure())
    count = 0

    def build(cfg, **overrides):
        nonlocal count
        count += 1
        return EVARunner.from_cfg(
            {**copy.deepcopy(cfg), **overrides, 'experiment_name': f'toy{count}_{id(cfg)}'}
        )

    yield build
    for manager in (MessageHub, MMLogger, Visualizer, DefaultScope):
        manager._instance_dict.clear()


@pytest.fixture
def run_dir(toy_cfg):
    return Path(toy_cfg['work_dir'])
