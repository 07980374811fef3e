"""An image-text model in the runner: micro batches, step guard, throughput, clamping."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DATASETS, DefaultScope
from mmengine.visualization import Visualizer
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from evamm.engine import EVARunner

from .pairs import CONTEXT, TEXT, VISION, VOCAB, images, tokens

COUNT, BATCH = 12, 6


@DATASETS.register_module()
class TinyPairs(Dataset):
    """Noise with captions."""

    def __init__(self):
        self.images = (images(COUNT) * 50 + 120).clamp(0, 255).byte()
        self.tokens = tokens(COUNT)

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        sample = DataSample()
        sample.set_field(self.tokens[index], 'text_tokens')
        return {'inputs': self.images[index], 'data_samples': sample}


class Watch(Hook):
    """Weights after every iteration."""

    def __init__(self):
        self.weights = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.weights.append({k: v.clone() for k, v in runner.model.state_dict().items()})


@pytest.fixture
def train(tmp_path, monkeypatch):
    monkeypatch.setattr(EVARunner, '_log_env', lambda self, env_cfg: None)
    monkeypatch.setattr(Config, 'pretty_text', property(lambda self: repr(self._cfg_dict)))
    cfg = {
        'default_scope': 'mmpretrain',
        'model': {
            'type': 'evamm.EVACLIP',
            'backbone': {
                'type': 'evamm.EVAViT',
                'arch': VISION,
                'img_size': 16,
                'patch_size': 4,
                'out_type': 'cls_token',
                'patch_dropout': 0.5,
                'drop_path_rate': 0.3,
            },
            'text': {
                'type': 'evamm.CLIPTextTransformer',
                'arch': TEXT,
                'context_length': CONTEXT,
                'vocab_size': VOCAB,
            },
            'embed_dims': 16,
            'train_cfg': {'micro_batch_size': 4},
            'data_preprocessor': {
                'type': 'mmpretrain.ClsDataPreprocessor',
                'mean': [120.0] * 3,
                'std': [60.0] * 3,
            },
        },
        'train_dataloader': {
            'batch_size': BATCH,
            'num_workers': 0,
            'sampler': {'type': 'DefaultSampler', 'shuffle': True},
            'dataset': {'type': 'TinyPairs'},
            'collate_fn': {'type': 'default_collate'},
        },
        'train_cfg': {'by_epoch': True, 'max_epochs': 2},
        'optim_wrapper': {
            'type': 'evamm.AmpOptimWrapper',
            'optimizer': {'type': 'AdamW', 'lr': 1e-3},
            'clip_grad': {'max_norm': 1.0},
        },
        'default_hooks': {
            'logger': {'type': 'LoggerHook', 'interval': 2},
            'throughput': {'type': 'evamm.ThroughputHook', 'matmul_tflops': 1e-3},
        },
        'custom_hooks': [{'type': 'evamm.ClampLogitScaleHook'}],
        'randomness': {'seed': 3},
        'log_level': 'WARNING',
    }
    count = 0

    def run(*hooks, train_cfg=None, model=None):
        nonlocal count
        count += 1
        own = copy.deepcopy(cfg)
        own['train_cfg'].update(train_cfg or {})
        own['model'].update(model or {})
        own.update(work_dir=str(tmp_path / f'run{count}'), experiment_name=f'pairs{count}')
        runner = EVARunner.from_cfg(own)
        watch = Watch()
        for hook in (*hooks, watch):
            runner.register_hook(hook)
        runner.train()
        return runner, watch.weights

    yield run
    for manager in (MessageHub, MMLogger, Visualizer, DefaultScope):
        manager._instance_dict.clear()


class Poison(Hook):
    """Makes the loss of one iteration non-finite, the given number of times."""

    def __init__(self, iteration, times):
        self.iteration, self.times = iteration, times

    def before_train(self, runner):
        loss = runner.model.loss
        forward = loss.forward

        def poisoned(*args):
            if runner.iter == self.iteration and self.times:
                self.times -= 1
                return forward(*args) * float('nan')
            return forward(*args)

        loss.forward = poisoned


def test_a_transient_fault_leaves_no_trace(train):
    """The second try draws the same patches and paths in every part."""
    _, expected = train()
    runner, found = train(Poison(1, times=1))
    assert runner.train_loop.guard.skipped == 0
    for name, value in expected[-1].items():
        assert torch.equal(found[-1][name], value), name


def test_a_reproducible_fault_is_skipped(train):
    runner, found = train(Poison(1, times=2))
    assert runner.train_loop.guard.skipped == 1
    for name, value in found[0].items():
        assert torch.equal(found[1][name], value), name
    assert not torch.equal(found[2]['head.weight'], found[1]['head.weight'])


def test_speed_and_use_of_the_machine_are_logged(train):
    runner, _ = train()
    hub = runner.message_hub.log_scalars
    assert hub['train/images_per_second'].current() > 0
    assert hub['train/mfu'].current() > 0
    assert hub['train/hfu'].current() == pytest.approx(hub['train/mfu'].current() * 4 / 3)
    assert hub['train/logit_scale'].current() == pytest.approx(1 / 0.07, rel=0.1)


class SmallMemory(Hook):
    """A device that holds the activations of two pairs."""

    def before_train(self, runner):
        model = runner.model
        encode = model._encode

        def limited(images, tokens):
            if len(images) > 2:
                raise torch.OutOfMemoryError('injected')
            return encode(images, tokens)

        model._encode = limited


def test_a_batch_that_does_not_fit_stays_whole_for_the_loss(train):
    plain = {'train_cfg': {'micro_batch_size': 2}}
    runner, expected = train(model=plain)
    whole = {'train_cfg': None}
    split, found = train(SmallMemory(), train_cfg={'split_on_oom': True}, model=whole)
    assert split.model.micro_batch_size == 2
    for name, value in expected[-1].items():
        torch.testing.assert_close(found[-1][name], value, msg=name)


def test_without_permission_a_batch_that_does_not_fit_is_an_error(train):
    with pytest.raises(torch.OutOfMemoryError):
        train(SmallMemory(), model={'train_cfg': None})
