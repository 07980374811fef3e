import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, RandomSampler

from evamm.datasets.samplers import TrainingData, drawn_batches
from evamm.datasets.samplers.drawn_batches import DrawnBatchSampler


class Noise(Dataset):
    """Every sample takes numbers from all three generators."""

    metainfo = {'classes': ('a',)}

    def __init__(self, length=22):
        self.length = length
        self.loaded = []

    def __len__(self):
        return self.length

    def get_data_info(self, index):
        return {'width': 10 + index % 3, 'height': 11}

    def __getitem__(self, index):
        self.loaded.append(index)
        return torch.tensor(
            [index, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.double
        )


def build(sampler='default', workers=0, persistent=False, seed=5, **kwargs):
    dataset = Noise()
    samplers = {
        'default': lambda: DefaultSampler(dataset, shuffle=True, seed=seed),
        'infinite': lambda: InfiniteSampler(dataset, shuffle=True, seed=seed),
        'global generators': lambda: RandomSampler(dataset),
        'aspect ratio': lambda: DefaultSampler(dataset, shuffle=True, seed=seed),
    }
    chosen = samplers[sampler]()
    parts = {'sampler': chosen, 'batch_size': 4}
    if sampler == 'aspect ratio':
        batch_samplers = pytest.importorskip('mmdet.datasets.samplers')
        parts = {'batch_sampler': batch_samplers.AspectRatioBatchSampler(chosen, batch_size=4)}
    loader = DataLoader(
        dataset, num_workers=workers, persistent_workers=persistent, **parts, **kwargs
    )
    return TrainingData(loader, seed=seed)


def take(data, epoch, skip, limit=13):
    data.set_epoch(epoch)
    batches = []
    for batch in data.batches(epoch, skip):
        batches.append(batch)
        if len(batches) + skip == limit:
            break
    return batches


def equal(one, two):
    return len(one) == len(two) and all(map(torch.equal, one, two))


@pytest.mark.parametrize('sampler', ['default', 'infinite', 'global generators', 'aspect ratio'])
def test_a_pass_taken_up_anywhere_is_the_rest_of_the_pass(sampler):
    whole = take(build(sampler), 2, 0)
    assert len(whole) == (13 if sampler == 'infinite' else 6)
    for skip in (1, 3, 5, 6):
        torch.manual_seed(skip)
        data = build(sampler)
        assert equal(take(data, 2, skip), whole[skip:])
        assert len(data.loader.dataset.loaded) <= 4 * (len(whole) - skip)


@pytest.mark.parametrize('sampler', ['default', 'global generators'])
def test_epochs_differ_and_seeds_differ(sampler):
    one, two = take(build(sampler), 0, 0), take(build(sampler), 1, 0)
    assert not equal(one, two)
    assert sorted(torch.cat(one)[:, 0]) == sorted(torch.cat(two)[:, 0])
    assert not equal(one, take(build(sampler, seed=6), 0, 0))


def test_the_same_image_looks_different_in_every_epoch():
    one, two = (torch.cat(take(build(), epoch, 0)) for epoch in (0, 1))
    one, two = (batch[batch[:, 0].argsort()] for batch in (one, two))
    assert (one[:, 1:] != two[:, 1:]).all()


@pytest.mark.parametrize('persistent', [False, True])
def test_workers_change_nothing(persistent):
    whole = take(build(), 0, 0)
    data = build(workers=2, persistent=persistent, prefetch_factor=4)
    assert equal(take(data, 0, 0), whole)
    assert equal(take(data, 0, 2), whole[2:])
    assert equal(take(data, 1, 0), take(build(), 1, 0))


@pytest.mark.parametrize('workers', [0, 1])
def test_loading_leaves_the_generators_of_training_alone(workers):
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    take(build('global generators', workers=workers), 0, 0)
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


def test_two_processes_look_at_the_data_as_one_does(monkeypatch):
    """The same samples with the same augmentations in every step, in another order."""
    dataset = Noise(length=24)

    def steps(rank, world_size, batch_size):
        monkeypatch.setattr(drawn_batches, 'get_rank', lambda: rank)
        monkeypatch.setattr(drawn_batches, 'get_world_size', lambda: world_size)
        sampler = DefaultSampler(dataset, seed=3)
        sampler.rank, sampler.world_size = rank, world_size
        sampler.num_samples = len(dataset) // world_size
        return list(DrawnBatchSampler(BatchSampler(sampler, batch_size, False), seed=3))

    one = steps(0, 1, 4)
    two = [a + b for a, b in zip(steps(0, 2, 2), steps(1, 2, 2), strict=True)]
    assert [sorted(step) for step in one] == [sorted(step) for step in two]


def test_the_wrapped_dataset_shows_through():
    dataset = build().loader.dataset
    assert dataset.metainfo == {'classes': ('a',)}
    dataset.pipeline = 'changed by a hook'
    assert dataset._dataset.pipeline == 'changed by a hook'
    assert dataset[3][0] == 3 and len(dataset) == 22
    with pytest.raises(AttributeError, match='nothing'):
        dataset.nothing  # noqa: B018
    assert pickle.dumps(dataset._dataset)


def test_a_changed_seed_reaches_all_parts():
    data = build(seed=1)
    data.seed = 9
    assert equal(take(data, 0, 0), take(build(seed=9), 0, 0))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(8))


def test_a_stream_is_loaded_again():
    data = TrainingData(DataLoader(Stream(), batch_size=2), seed=0)
    assert [batch.tolist() for batch in data.batches(0, 2)] == [[4, 5], [6, 7]]
