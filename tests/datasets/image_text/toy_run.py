"""A training run on shards, small enough for a test; also started twice, as torchrun does it."""

import copy
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from torch import nn

from evamm.engine import EVARunner


class Crash(Exception):
    pass


@HOOKS.register_module()
class ShardCrashHook(Hook):
    """Ends the run after an iteration, when its checkpoint is written."""

    priority = 'LOWEST'

    def __init__(self, iteration):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            raise Crash


@MODELS.register_module()
class ShardToyModel(BaseModel):
    """Its weights depend on every pixel, token, and on the order of the batches."""

    def __init__(self):
        super().__init__()
        self.image = nn.Linear(3 * 8 * 8, 4)
        self.text = nn.Embedding(49408, 4)

    def init_weights(self):
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for param in self.parameters():
                param.copy_(torch.randn(param.shape, generator=generator) * 0.1)

    def forward(self, inputs, data_samples, mode='tensor'):
        images = self.image(torch.dropout(inputs.float().flatten(1) / 255, 0.2, self.training))
        tokens = torch.stack([sample.text_tokens for sample in data_samples])
        return {'loss': (images - self.text(tokens).mean(1)).square().mean()}


def config(work_dir, shards, cache_dir, workers=0, by_epoch=True, mixture=False):
    pipeline = [
        dict(type='evamm.LoadImageFromFile'),
        dict(type='evamm.RandomResizedCrop', scale=8, crop_ratio_range=(0.3, 1.0)),
        dict(type='evamm.TokenizeText'),
        dict(type='evamm.PackPairInputs'),
    ]
    dataset = dict(
        type='evamm.ImageTextShards',
        data_root=str(shards),
        shards='*.tar',
        cache_dir=str(cache_dir),
        pipeline=pipeline,
    )
    if mixture:
        parts = [
            {**copy.deepcopy(dataset), 'shards': names} for names in ('s-00[01]*', 's-00[234]*')
        ]
        dataset = dict(type='evamm.ImageTextMixture', datasets=parts, weights=[3, 1])
    loop = dict(by_epoch=True, max_epochs=3) if by_epoch else dict(by_epoch=False, max_iters=30)
    return dict(
        model=dict(type='ShardToyModel'),
        work_dir=str(work_dir),
        default_scope='mmpretrain',
        train_dataloader=dict(
            batch_size=10 if not mixture else 9,
            num_workers=workers,
            persistent_workers=workers > 0,
            drop_last=True,
            sampler=dict(type='evamm.ShardSampler', window=2, replacement=mixture),
            collate_fn=dict(type='default_collate'),
            dataset=dataset,
        ),
        train_cfg=loop,
        optim_wrapper=dict(type='evamm.AmpOptimWrapper', optimizer=dict(type='SGD', lr=0.5)),
        default_hooks=dict(
            checkpoint=dict(
                type='evamm.CheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=2
            )
        ),
        randomness=dict(seed=3),
        log_level='WARNING',
    )


def train(cfg, **overrides):
    MessageHub._instance_dict.clear()
    name = f'run{random.SystemRandom().random()}'
    EVARunner.from_cfg({**copy.deepcopy(cfg), 'experiment_name': name, **overrides}).train()


def whole_and_resumed(cfg, stops):
    """Run without a stop, then with stops; the folders of both."""
    EVARunner._log_env = lambda self, env_cfg: None
    whole = cfg['work_dir'] + '_whole'
    train(cfg, work_dir=whole)
    for stop in stops:
        try:
            train(cfg, resume=True, custom_hooks=[dict(type='ShardCrashHook', iteration=stop)])
        except Crash:
            pass
        else:
            raise AssertionError('the run was not stopped')
        random.seed(9), np.random.seed(9), torch.manual_seed(9)  # as in another process
    train(cfg, resume=True)
    return Path(whole), Path(cfg['work_dir'])


if __name__ == '__main__':
    settings = json.loads(sys.argv[1])
    whole_and_resumed({**config(**settings), 'launcher': 'pytorch'}, stops=[9])
