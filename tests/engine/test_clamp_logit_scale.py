"""The hook that keeps the logit scale of saved and averaged weights in range."""

import math

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from torch import nn

from evamm.engine.errors import ConfigError


@MODELS.register_module()
class ScaleModel(BaseModel):
    """Its optimizer drives the scale upwards."""

    def __init__(self):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(4.0))

    def clamp_logit_scale(self):
        self.logit_scale.data.clamp_(0, math.log(100))

    def forward(self, inputs, labels, mode='tensor'):
        if mode == 'loss':
            return {'loss': -self.logit_scale * inputs.abs().mean()}
        return [{'score': row} for row in inputs]


def test_weights_are_in_range_when_others_see_them(toy_cfg, make_runner):
    toy_cfg['model'] = {'type': 'ScaleModel'}
    toy_cfg['optim_wrapper'] = {'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 1.0}}
    toy_cfg['custom_hooks'] = [
        {'type': 'evamm.EMAHook', 'momentum': 0.5},
        {'type': 'evamm.ClampLogitScaleHook'},
    ]
    runner = make_runner(toy_cfg)
    runner.train()
    assert runner.model.logit_scale.item() == pytest.approx(math.log(100))
    (ema,) = [hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook']
    assert 4.1 < ema.ema_model.module.logit_scale.item() <= math.log(100)


def test_a_model_without_a_scale_is_an_error(toy_cfg, make_runner):
    runner = make_runner(toy_cfg)
    runner.register_hook(HOOKS.build({'type': 'evamm.ClampLogitScaleHook'}))
    with pytest.raises(ConfigError, match='remove the hook'):
        runner.train()
