"""What the tests of exact resuming share."""

import random

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, OPTIM_WRAPPERS

from evamm.engine import AmpOptimWrapper

COMPARED = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'rng', 'train_loop')


class Crash(Exception):
    pass


@HOOKS.register_module()
class CrashHook(Hook):
    """Ends the process, as far as a test can, right after the hooks of one iteration."""

    priority = 'LOWEST'

    def __init__(self, iteration, where='train'):
        self.iteration = iteration
        self.where = where

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.where == 'train' and runner.iter + 1 == self.iteration:
            raise Crash

    def before_val(self, runner):
        if self.where == 'val' and runner.iter == self.iteration:
            raise Crash

    def after_val_epoch(self, runner, metrics=None):
        if self.where == 'after val' and runner.iter == self.iteration:
            raise Crash


@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(AmpOptimWrapper):
    """Loss scaling as on a GPU in float16, with a scale that changes often."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=64.0, growth_interval=3)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def logged(checkpoint):
    """Everything logged but the clock."""
    scalars = checkpoint['message_hub']['log_scalars']
    return {key: value for key, value in scalars.items() if not key.endswith('time')}


def assert_same_end(one, two):
    one, two = torch.load(one, weights_only=True), torch.load(two, weights_only=True)
    for part in COMPARED:
        assert (part in one) == (part in two), part
        assert same(one.get(part), two.get(part)), part
    assert same(logged(one), logged(two))
    for key in ('epoch', 'iter'):
        assert one['meta'][key] == two['meta'][key]


def scramble():
    """Another process has other states."""
    random.seed(99), np.random.seed(99), torch.manual_seed(99)


def by_iteration(cfg, sampler='DefaultSampler'):
    cfg['train_cfg'] = {'by_epoch': False, 'max_iters': 18, 'val_interval': 7}
    cfg['param_scheduler'] = {
        'type': 'evamm.WarmupCosineLR',
        'warmup': 4,
        'by_epoch': False,
        'end': 18,
    }
    cfg['train_dataloader']['sampler']['type'] = sampler
