"""A tiny EVA classifier, its data and runs of it, for distributed_runs.py."""

import copy

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import nn
from torch.distributed.tensor import DTensor

import evamm.registry  # noqa: F401
from evamm.engine import EVARunner

EPOCHS, PER_EPOCH, TOTAL_BATCH = 2, 3, 4


@DATASETS.register_module()
class TinyImages(torch.utils.data.Dataset):
    """Noise with a class; sample i is the same everywhere."""

    def __len__(self):
        return PER_EPOCH * TOTAL_BATCH

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return {
            'inputs': torch.randn(3, 16, 16, generator=generator),
            'labels': torch.tensor(index % 3),
        }


@MODELS.register_module()
class TinyClassifier(BaseModel):
    def __init__(self, with_cp=False, freeze=True):
        super().__init__()
        self.backbone = MODELS.build(
            {
                'type': 'evamm.EVAViT',
                'arch': {'embed_dims': 16, 'depth': 2, 'num_heads': 2},
                'img_size': 16,
                'patch_size': 8,
                'freeze_patch_embed': freeze,
                'with_cp': with_cp,
            }
        )
        self.head = nn.Linear(16, 3)

    def forward(self, inputs, labels, mode='tensor'):
        logits = self.head(self.backbone(inputs)[-1])
        if mode == 'loss':
            return {'loss': nn.functional.cross_entropy(logits, labels)}
        return list(logits)


class Losses(Hook):
    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].detach().clone()
        if get_world_size() > 1:
            torch.distributed.all_reduce(loss)
        self.values.append(loss.item() / get_world_size())


def config(work_dir, processes, **overrides):
    cfg = {
        'model': {'type': 'TinyClassifier'},
        'work_dir': str(work_dir),
        'train_dataloader': {
            'batch_size': TOTAL_BATCH // processes,
            'num_workers': 0,
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': {'type': 'default_collate'},
            'dataset': {'type': 'TinyImages'},
        },
        'train_cfg': {'by_epoch': True, 'max_epochs': EPOCHS},
        'optim_wrapper': {
            'type': 'evamm.AmpOptimWrapper',
            'constructor': 'evamm.LayerDecayOptimWrapperConstructor',
            'paramwise_cfg': {'layer_decay_rate': 0.8},
            'optimizer': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0.05},
            'clip_grad': {'max_norm': 0.5},
        },
        'default_hooks': {
            'checkpoint': {'type': 'evamm.CheckpointHook', 'interval': 1},
            'logger': {'type': 'LoggerHook', 'interval': 3},
            'throughput': {'type': 'evamm.ThroughputHook', 'matmul_tflops': 1},
        },
        'custom_hooks': [{'type': 'evamm.EMAHook', 'momentum': 0.1}],
        'env_cfg': {'dist_cfg': {'backend': 'gloo'}},
        'randomness': {'seed': 3},
        'launcher': 'none' if processes == 1 else 'pytorch',
        'log_level': 'ERROR',
    }
    cfg.update(overrides)
    return cfg


def build(cfg, name):
    EVARunner._log_env = lambda self, env_cfg: None
    runner = EVARunner.from_cfg({**copy.deepcopy(cfg), 'experiment_name': name})
    losses = Losses()
    runner.register_hook(losses)
    return runner, losses


def weights(runner):
    return weights_of(runner.model.module if get_world_size() > 1 else runner.model)


def weights_of(model):
    """Whole weights, the same on all processes."""
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for name, value in model.state_dict().items()
    }


def assert_close(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        difference = (found[name].float() - value.float()).abs().max().item()
        assert difference <= tolerance, f'{name} differs by {difference:.3g}'
