"""An image-text model in two processes against one with the joined batch; see test_distributed.py.

Results go to a file for each process as {name: None or the text of the error}.
"""

import json
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import torch.nn.functional as F
from mmengine.model import MMDistributedDataParallel
from pairs import build, gradients, images, samples, tokens
from torch.distributed.tensor import DTensor

from evamm.engine import FSDP2, AmpOptimWrapper

WORLD, BATCH = 2, 8
SIGMOID = dict(loss=dict(type='evamm.SigmoidLoss'), logit_scale=10.0, logit_bias=-10.0)

CHECKS = (
    'local_loss_with_gradients_gathered',
    'whole_loss_with_gradients_gathered',
    'whole_loss_without_gradients_gathered',
    'local_loss_without_gradients_gathered',
    'label_smoothing',
    'sigmoid_loss',
    'micro_batches',
    'micro_batches_and_checkpointing',
    'sharded_step',
    'sharded_micro_batches',
    'steps_of_the_optimizer',
)


def contrastive(local, gather, **options):
    loss = dict(type='evamm.ContrastiveLoss', local_loss=local, gather_with_grad=gather, **options)
    return dict(loss=loss)


def batch(rank=None):
    """The whole batch or the part of a process."""
    half = BATCH // WORLD
    part = slice(None) if rank is None else slice(rank * half, (rank + 1) * half)
    return {'inputs': images(BATCH)[part], 'data_samples': samples(tokens(BATCH)[part])}


def run(model, rank=None):
    """Loss and gradients of a forward and a backward pass."""
    loss = model(**batch(rank), mode='loss')['loss']
    loss.backward()
    return loss.detach()


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def assert_equal(found, expected, tolerance=1e-10):
    assert found.keys() == expected.keys(), set(found) ^ set(expected)
    for name, value in expected.items():
        difference = (found[name] - value).norm() / value.norm().clamp(min=1e-6)
        assert difference < tolerance, f'{name} differs by {difference:.3g}'


def without_gathered_gradients():
    """What local loss without gathered gradients means: candidates are constants."""
    model = build()
    all_images, all_texts, scale = model(images(BATCH), samples(tokens(BATCH)))
    half, labels, loss = BATCH // WORLD, torch.arange(BATCH), 0
    for rank in range(WORLD):
        own = slice(rank * half, (rank + 1) * half)
        per_image = scale * all_images[own] @ all_texts.detach().t()
        per_text = scale * all_texts[own] @ all_images.detach().t()
        loss += F.cross_entropy(per_image, labels[own]) + F.cross_entropy(per_text, labels[own])
    (loss / 2 / WORLD).backward()
    return gradients(model)


def train(model, wrap=lambda model: model, rank=None):
    """Weights after three steps with clipping."""
    wrapped = wrap(model)
    groups = [
        {'params': [p for n, p in model.named_parameters() if n != 'logit_scale']},
        {'params': [model.logit_scale], 'lr': 0.5},
    ]
    optimizer = AmpOptimWrapper(
        torch.optim.AdamW(groups, lr=1e-3, eps=1e-4), clip_grad=dict(max_norm=0.1)
    )
    for _ in range(3):
        wrapped.train_step(batch(rank), optimizer)
    return {name: whole(value).detach().clone() for name, value in model.state_dict().items()}


class Checks:
    """One process of two."""

    def __init__(self, rank, expected):
        self.rank = rank
        self.expected = expected

    def compare(self, options, reference, gradients_of=None):
        model = build(**options)
        wrapped = MMDistributedDataParallel(model)
        loss = run(wrapped, self.rank)
        torch.distributed.all_reduce(loss)
        expected_loss, expected = self.expected[reference]
        assert abs(loss / WORLD - expected_loss) < 1e-12 * abs(expected_loss)
        assert_equal(gradients(model), gradients_of or expected)

    def local_loss_with_gradients_gathered(self):
        self.compare(contrastive(True, True), 'contrastive')

    def whole_loss_with_gradients_gathered(self):
        self.compare(contrastive(False, True), 'contrastive')

    def whole_loss_without_gradients_gathered(self):
        self.compare(contrastive(False, False), 'contrastive')

    def local_loss_without_gradients_gathered(self):
        self.compare(contrastive(True, False), 'contrastive', self.expected['constant candidates'])

    def label_smoothing(self):
        self.compare(contrastive(True, True, label_smoothing=0.1), 'smooth')

    def sigmoid_loss(self):
        self.compare(SIGMOID, 'sigmoid')

    def micro_batches(self):
        self.compare(dict(train_cfg=dict(micro_batch_size=3)), 'contrastive')

    def micro_batches_and_checkpointing(self):
        parts = dict(train_cfg=dict(micro_batch_size=1))
        self.compare(
            dict(vision=dict(with_cp=True), text=dict(with_cp=True), **parts), 'contrastive'
        )

    def shard(self, **options):
        model = build(**options)
        wrapped = FSDP2(model)
        for block in (*model.backbone.blocks, *model.text.blocks):
            assert all(isinstance(param, DTensor) for param in block.parameters())
        loss = run(wrapped, self.rank)
        torch.distributed.all_reduce(loss)
        expected_loss, expected = self.expected['contrastive']
        assert abs(loss / WORLD - expected_loss) < 1e-12 * abs(expected_loss)
        found = {name: whole(grad) for name, grad in gradients(model).items()}
        assert_equal(found, expected, tolerance=1e-6)  # sums are float32

    def sharded_step(self):
        self.shard()

    def sharded_micro_batches(self):
        self.shard(vision=dict(with_cp=True), train_cfg=dict(micro_batch_size=3))

    def steps_of_the_optimizer(self):
        for wrap in (MMDistributedDataParallel, FSDP2):
            found = train(build(train_cfg=dict(micro_batch_size=3)), wrap, self.rank)
            assert_equal(found, self.expected['weights'], tolerance=1e-6)


def main():
    torch.set_num_threads(1)
    rank = int(os.environ['RANK'])
    expected = {}
    for name, options in {
        'contrastive': {},
        'smooth': contrastive(True, True, label_smoothing=0.1),
        'sigmoid': SIGMOID,
    }.items():
        model = build(**options)
        expected[name] = (run(model), gradients(model))
    expected['constant candidates'] = without_gathered_gradients()
    expected['weights'] = train(build())
    torch.distributed.init_process_group('gloo')
    checks, results = Checks(rank, expected), {}
    for name in CHECKS:
        try:
            getattr(checks, name)()
            results[name] = None
        except Exception:
            results[name] = traceback.format_exc()
    torch.distributed.destroy_process_group()
    Path(sys.argv[1], f'results{rank}.json').write_text(json.dumps(results))


if __name__ == '__main__':
    main()
