"""Started twice by a test, as torchrun does it: an uninterrupted run, a stopped one, its resume."""

import copy
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import conftest  # noqa: F401  the toy model, data and metric
import pytest
from exact_runs import Crash, scramble
from mmengine.logging import MessageHub

from evamm.engine import EVARunner
from evamm.engine.runner.launch import leave_process_group


def train(cfg, name, **overrides):
    MessageHub._instance_dict.clear()
    EVARunner.from_cfg({**copy.deepcopy(cfg), 'experiment_name': name, **overrides}).train()


def main():
    EVARunner._log_env = lambda self, env_cfg: None
    cfg = json.loads(Path(sys.argv[1]).read_text())
    cfg['launcher'] = 'pytorch'
    stop = {'type': 'CrashHook', 'iteration': 7}
    train(cfg, 'whole', work_dir=cfg['work_dir'] + '_whole')
    with pytest.raises(Crash):
        train(cfg, 'stopped', custom_hooks=[*cfg['custom_hooks'], stop])
    scramble()
    train(cfg, 'resumed', resume=True)
    leave_process_group()


if __name__ == '__main__':
    main()
