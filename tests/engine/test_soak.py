"""Nothing piles up in a long run."""

import os

import pytest
from mmengine.hooks import Hook


class Resources(Hook):
    """Open files and child processes at the end of every epoch."""

    def __init__(self):
        self.counts = []

    def after_train_epoch(self, runner):
        with open(f'/proc/{os.getpid()}/task/{os.getpid()}/children') as children:
            workers = len(children.read().split())
        self.counts.append((len(os.listdir('/proc/self/fd')), workers))


@pytest.mark.skipif(not os.path.isdir('/proc/self/fd'), reason='needs /proc')
@pytest.mark.parametrize('persistent', [False, True])
def test_files_and_workers_do_not_pile_up(toy_cfg, make_runner, persistent):
    toy_cfg['train_cfg'].update(max_epochs=8, val_interval=2)
    toy_cfg['param_scheduler']['end'] = 8
    toy_cfg['train_dataloader'].update(num_workers=2, persistent_workers=persistent)
    toy_cfg['default_hooks']['checkpoint'].update(max_keep_ckpts=2, async_save=True)
    runner = make_runner(toy_cfg)
    resources = Resources()
    runner.register_hook(resources, priority='LOWEST')
    runner.train()
    files, workers = zip(*resources.counts, strict=True)
    assert max(files[4:]) <= max(files[1:4])
    assert max(workers[4:]) <= max(workers[1:4])
