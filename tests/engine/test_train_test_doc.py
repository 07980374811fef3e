"""docs/en/train_test.md says what is true."""

import argparse
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from mmengine.registry import (
    HOOKS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    PARAM_SCHEDULERS,
    RUNNERS,
    VISBACKENDS,
)

import evamm.registry  # noqa: F401
from evamm.engine.runner.launch import add_common_arguments, load_config
from evamm.models import EVAViT

REPO = Path(__file__).resolve().parents[2]
DOC = (REPO / 'docs/en/train_test.md').read_text()


def test_the_parts_it_shows_can_be_built():
    parts = {}
    exec(re.search(r'```python\n(.*?)```', DOC, re.DOTALL)[1], parts)
    assert RUNNERS.get(parts['runner_type']).__name__ == 'EVARunner'
    wrapper_cfg = dict(parts['optim_wrapper'])
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        {
            'type': wrapper_cfg.pop('constructor'),
            'paramwise_cfg': wrapper_cfg.pop('paramwise_cfg'),
            'optim_wrapper_cfg': wrapper_cfg,
        }
    )
    model = EVAViT({'embed_dims': 16, 'depth': 2, 'num_heads': 2}, img_size=28, patch_size=14)
    wrapper = constructor(model)
    assert type(wrapper).__name__ == 'AmpOptimWrapper'
    scheduler = PARAM_SCHEDULERS.build(
        {**parts['param_scheduler'], 'end': 30},
        default_args={'optimizer': wrapper, 'epoch_length': 10},
    )
    assert (scheduler.warmup, scheduler.end) == (50, 300)
    for hook in [*parts['custom_hooks'], parts['default_hooks']['checkpoint']]:
        HOOKS.build(hook)


@pytest.mark.parametrize(('tool', 'section'), [('train', '## Train'), ('test', '## Test')])
def test_it_lists_every_option(tool, section, monkeypatch):
    spec = importlib.util.spec_from_file_location(f'doc_{tool}', REPO / f'tools/{tool}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, 'argv', [tool, 'config.py', 'weights.pth'][: 2 + (tool == 'test')])
    known = {f'--{name.replace("_", "-")}' for name in vars(module.parse_args())}
    known -= {'--config', '--checkpoint', '--local-rank'}
    text = DOC.split(f'{section}\n')[1].split('\n## ')[0]
    table = ' '.join(line for line in text.splitlines() if line.startswith('| `'))
    listed = set(re.findall(r'--[a-z-]+', table))
    assert listed <= known
    common = (
        set()
        if tool == 'train'
        else {'--work-dir', '--cfg-options', '--launcher', '--no-pin-memory'}
    )
    assert known - listed == common


def test_the_options_for_other_places_of_the_log_work():
    options = re.findall(r'train.py CONFIG --cfg-options (visualizer\S+)', DOC)
    assert len(options) == 3
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    for option in options:
        args = parser.parse_args(['--cfg-options', option])
        cfg = load_config(str(REPO / 'configs/eva02/eva02_tiny_p14_8xb16_in1k.py'), args)
        (backend,) = cfg.visualizer.vis_backends
        assert backend.type == option.partition('=')[2] and backend.type in VISBACKENDS
