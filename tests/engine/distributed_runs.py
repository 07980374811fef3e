"""Runs of a tiny EVA classifier in one and in two processes, for test_distributed.py.

All checks run in one start of the processes, because starting takes longer than checking. Results
go to a file as {name: None or the text of the error}.
"""

import copy
import json
import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import torch
from distributed_model import PER_EPOCH, assert_close, build, config, weights, weights_of
from mmengine.dist import get_rank
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import MODELS
from torch import nn
from torch.distributed.tensor import DTensor

from evamm.engine import FSDP2, LAMB, LARS
from evamm.engine.strategies.sharded_checkpoint import read_sharded

REPO = Path(__file__).resolve().parents[2]

CHECKS = (
    'ddp_equals_one_process',
    'fsdp_equals_one_process',
    'lamb_and_lars_take_the_norms_of_whole_tensors',
    'fsdp_writes_the_file_of_one_process',
    'fsdp_resumes_where_one_process_stopped',
    'fsdp_accumulates_and_resumes_inside_a_window',
    'fsdp_loads_weights_of_any_dialect',
    'sharded_checkpoints_resume',
    'two_processes_resume_from_the_shards_of_one',
    'shards_of_weights_alone_are_loaded',
    'a_damaged_sharded_checkpoint_is_passed_over',
    'one_process_resumes_where_fsdp_stopped',
    'one_process_resumes_from_shards',
    'shards_are_merged_into_the_file_of_one_process',
)

ALONE = 3  # The last ones run in one process.


class Checks:
    def __init__(self, root):
        self.root = root
        self.single = torch.load(root / 'single.pth', weights_only=True)

    def compare(self, runner, losses):
        assert_close(weights(runner), self.single['weights'])
        for found, expected in zip(losses.values, self.single['losses'], strict=True):
            assert abs(found - expected) < 1e-6, (found, expected)

    def ddp_equals_one_process(self):
        runner, losses = build(config(self.root / 'ddp', 2), 'ddp')
        runner.train()
        assert type(runner.model).__name__ == 'MMDistributedDataParallel'
        self.compare(runner, losses)
        norms = runner.message_hub.get_scalar('train/grad_norm').data[0]
        assert abs(norms - self.single['norms'].numpy()).max() < 1e-5

    def fsdp_equals_one_process(self):
        """Layer decay, frozen parts, clipping, EMA, checkpointing and compilation included."""
        cfg = config(
            self.root / 'fsdp',
            2,
            model={'type': 'TinyClassifier', 'with_cp': True},
            model_wrapper_cfg={'type': 'evamm.FSDP2'},
            compile={'backend': 'aot_eager'},
        )
        runner, losses = build(cfg, 'fsdp')
        assert isinstance(runner.model, FSDP2)
        block = runner.model.module.backbone.blocks[0]
        whole = block.mlp.w3.weight
        assert isinstance(whole, DTensor) and whole.to_local().numel() * 2 == whole.numel()
        runner.train()
        self.compare(runner, losses)
        norms = runner.message_hub.get_scalar('train/grad_norm').data[0]
        assert abs(norms - self.single['norms'].numpy()).max() < 1e-5
        hub = runner.message_hub.log_scalars
        assert hub['train/hfu'].current() > 1.3 * hub['train/mfu'].current()

    def lamb_and_lars_take_the_norms_of_whole_tensors(self):
        batch = {
            'inputs': torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
            'labels': torch.tensor([0, 1, 2, 1]),
        }
        for optimizer_class in (LAMB, LARS):
            torch.manual_seed(5)
            whole = MODELS.build({'type': 'TinyClassifier'})
            whole.init_weights()
            whole.scale = nn.Parameter(torch.tensor(2.0))  # a scalar cannot be sharded
            sharded = FSDP2(copy.deepcopy(whole))
            for model in (whole, sharded):
                scale = model.scale if model is whole else model.module.scale
                params = [param for param in model.parameters() if param.requires_grad]
                optimizer = optimizer_class(params, lr=0.1, weight_decay=0.05)
                for _ in range(3):
                    optimizer.zero_grad()
                    (scale * model(**batch, mode='loss')['loss']).backward()
                    optimizer.step()
            found = weights_of(sharded.module)
            assert_close(found, dict(whole.named_parameters()), tolerance=2e-6)

    def fsdp_writes_the_file_of_one_process(self):
        found = torch.load(self.root / 'fsdp' / 'epoch_2.pth', weights_only=True)
        for part in ('state_dict', 'ema_state_dict'):
            expected = self.single['checkpoint'][part]
            assert_close(found[part], expected)
        expected = self.single['checkpoint']['optimizer']
        for index, state in expected['state'].items():
            assert_close(found['optimizer']['state'][index], state)

    def fsdp_resumes_where_one_process_stopped(self):
        cfg = config(
            self.root / 'resumed',
            2,
            model_wrapper_cfg={'type': 'evamm.FSDP2'},
            load_from=str(self.root / 'single' / 'epoch_1.pth'),
            resume=True,
        )
        runner, losses = build(cfg, 'resumed')
        runner.train()
        assert len(losses.values) == PER_EPOCH
        assert_close(weights(runner), self.single['weights'])

    def fsdp_accumulates_and_resumes_inside_a_window(self):
        optim_wrapper = config(self.root, 2)['optim_wrapper']
        options = {
            'optim_wrapper': {**optim_wrapper, 'accumulative_counts': 4},
            'default_hooks': {
                'checkpoint': {'type': 'evamm.CheckpointHook', 'interval': 2, 'by_epoch': False}
            },
            'model_wrapper_cfg': {'type': 'evamm.FSDP2'},
        }
        whole, _ = build(config(self.root / 'window', 2, **options), 'window')
        whole.train()
        resumed, _ = build(
            config(
                self.root / 'window2',
                2,
                **options,
                load_from=str(self.root / 'window' / 'iter_2.pth'),
                resume=True,
            ),
            'window2',
        )
        resumed.train()
        assert_close(weights(resumed), weights(whole), tolerance=0)

    def fsdp_loads_weights_of_any_dialect(self):
        cfg = config(
            self.root / 'loaded',
            2,
            model_wrapper_cfg={'type': 'evamm.FSDP2'},
            load_from=str(self.root / 'single' / 'epoch_2.pth'),
            load_options={'prefer_ema': False},
        )
        runner, _ = build(cfg, 'loaded')
        runner.load_or_resume()
        assert_close(weights(runner), self.single['weights'], tolerance=0)

    def sharded_checkpoints_resume(self):
        cfg = config(
            self.root / 'shards',
            2,
            model_wrapper_cfg={'type': 'evamm.FSDP2', 'sharded_checkpoints': True},
        )
        runner, _ = build(cfg, 'shards')
        runner.train()
        folder = self.root / 'shards' / 'epoch_1.pth'
        shards = sorted(file.name[:11] for file in folder.glob('*.safetensors'))
        assert shards == ['shard-00001', 'shard-00002'], shards
        state = torch.load(folder / 'state.pth', weights_only=True)
        assert isinstance(state['state_dict']['backbone.blocks.0.attn.qkv.weight'], str)
        resumed, losses = build(
            {**cfg, 'work_dir': str(self.root / 's2'), 'load_from': str(folder), 'resume': True},
            'shards2',
        )
        resumed.train()
        assert len(losses.values) == PER_EPOCH
        assert_close(weights(resumed), weights(runner), tolerance=0)
        whole = [read_sharded(self.root / name / 'epoch_2.pth') for name in ('shards', 's2')]
        assert_close(whole[1]['ema_state_dict'], whole[0]['ema_state_dict'], tolerance=0)

    def two_processes_resume_from_the_shards_of_one(self):
        folder = self.root / 'one' / 'epoch_1.pth'
        assert len(list(folder.glob('*.safetensors'))) == 1
        cfg = config(
            self.root / 'one_to_two',
            2,
            model_wrapper_cfg={'type': 'evamm.FSDP2', 'sharded_checkpoints': True},
            load_from=str(folder),
            resume=True,
        )
        runner, losses = build(cfg, 'one_to_two')
        runner.train()
        assert len(losses.values) == PER_EPOCH
        assert_close(weights(runner), self.single['weights'])
        shards = (self.root / 'one_to_two' / 'epoch_2.pth').glob('*.safetensors')
        assert len(list(shards)) == 2

    def shards_of_weights_alone_are_loaded(self):
        """``load_from`` a folder, into a sharded model: averaged weights or those trained."""
        folder = self.root / 'shards' / 'epoch_2.pth'
        whole = read_sharded(folder)
        for prefer_ema, part in ((True, 'state_dict'), (False, 'ema_state_dict')):
            cfg = config(
                self.root / 'from_shards',
                2,
                model_wrapper_cfg={'type': 'evamm.FSDP2'},
                load_from=str(folder),
                load_options={'prefer_ema': prefer_ema},
            )
            runner, _ = build(cfg, f'from_{part}')
            runner.load_or_resume()
            found = weights(runner)
            expected = {
                name.removeprefix('module.'): value
                for name, value in whole[part].items()
                if torch.is_tensor(value) and value.ndim
            }
            assert_close(found, expected, tolerance=0)

    def a_damaged_sharded_checkpoint_is_passed_over(self):
        work_dir = self.root / 's2'
        (shard,) = (work_dir / 'epoch_2.pth').glob('shard-00002-*')
        if get_rank() == 0:
            shutil.copytree(self.root / 'shards' / 'epoch_1.pth', work_dir / 'epoch_1.pth')
            content = bytearray(shard.read_bytes())
            content[-1] ^= 1
            shard.write_bytes(content)
        torch.distributed.barrier()
        cfg = config(work_dir, 2, model_wrapper_cfg={'type': 'evamm.FSDP2'}, resume=True)
        runner, _ = build(cfg, 's3')
        assert runner._newest_checkpoint() == str(work_dir / 'epoch_1.pth')


def train_alone(root):
    runner, losses = build(config(root / 'single', 1), 'single')
    runner.train()
    norms = torch.from_numpy(runner.message_hub.get_scalar('train/grad_norm').data[0])
    checkpoint = torch.load(root / 'single' / 'epoch_2.pth', weights_only=True)
    torch.save(
        {
            'weights': weights(runner),
            'losses': losses.values,
            'norms': norms,
            'checkpoint': {
                key: checkpoint[key] for key in ('state_dict', 'ema_state_dict', 'optimizer')
            },
        },
        root / 'single.pth',
    )
    MessageHub._instance_dict.clear()
    MMLogger._instance_dict.clear()


def shard_alone(root):
    """A sharded checkpoint of one process."""
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{root}/store', rank=0, world_size=1
    )
    options = {'model_wrapper_cfg': {'type': 'evamm.FSDP2', 'sharded_checkpoints': True}}
    runner, _ = build({**config(root / 'one', 1, **options), 'launcher': 'pytorch'}, 'one')
    runner.train()
    torch.distributed.destroy_process_group()
    MessageHub._instance_dict.clear()
    MMLogger._instance_dict.clear()


def one_process_resumes_where_fsdp_stopped(root):
    single = torch.load(root / 'single.pth', weights_only=True)
    cfg = config(root / 'back', 1, load_from=str(root / 'fsdp' / 'epoch_1.pth'), resume=True)
    runner, _ = build(cfg, 'back')
    runner.train()
    assert_close(weights(runner), single['weights'])


def one_process_resumes_from_shards(root):
    single = torch.load(root / 'single.pth', weights_only=True)
    folder = root / 'shards' / 'epoch_1.pth'
    cfg = config(root / 'back2', 1, load_from=str(folder), resume=True)
    runner, _ = build(cfg, 'back2')
    runner.train()
    assert_close(weights(runner), single['weights'])


def shards_are_merged_into_the_file_of_one_process(root):
    single = torch.load(root / 'single.pth', weights_only=True)
    path = root / 'merged' / 'epoch_1.pth'
    command = [sys.executable, str(REPO / 'tools' / 'merge_shards.py')]
    command += [str(root / 'shards' / 'epoch_1.pth'), str(path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and 'give --force' in again.stderr
    cfg = config(root / 'merged', 1, resume=True)
    runner, _ = build(cfg, 'merged')
    runner.train()
    assert_close(weights(runner), single['weights'])


def main():
    root = Path(sys.argv[1])
    torch.set_num_threads(1)
    if os.environ['RANK'] == '0':
        train_alone(root)
        shard_alone(root)
    torch.distributed.init_process_group('gloo')
    checks = Checks(root)
    results = {}
    for name in CHECKS[:-ALONE]:
        results[name] = run(getattr(checks, name))
    torch.distributed.destroy_process_group()
    if os.environ['RANK'] == '0':
        for name in CHECKS[-ALONE:]:
            results[name] = run(lambda name=name: globals()[name](root))
    (root / f'results{os.environ["RANK"]}.json').write_text(json.dumps(results))


def run(check):
    try:
        check()
    except Exception:
        return traceback.format_exc()
    return None


if __name__ == '__main__':
    main()
