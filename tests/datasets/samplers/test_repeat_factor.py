"""Images of rare categories more often: detectron2's stream, resumed and shared by processes."""

import itertools
import math

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import BatchSampler, DataLoader

from evamm.datasets import RepeatFactorSampler
from evamm.datasets.samplers import TrainingData, repeat_factor
from evamm.registry import DATA_SAMPLERS

# Labels of 12 images: 0 everywhere, 1 in three, 2 in one; the last image has none.
SETS = [[0, 2], *[[0, 1]] * 3, *[[0]] * 7, []]


class Toy:
    """Images with labels."""

    def __len__(self):
        return len(SETS)

    def get_cat_ids(self, index):
        return SETS[index]

    def __getitem__(self, index):
        return index, np.random.randint(1 << 30)


def first(sampler, count):
    return list(itertools.islice(iter(sampler), count))


def test_factors_are_those_of_the_formula():
    labels, starts = repeat_factor.labels_of_images(Toy())
    factors = repeat_factor.repeat_factors(labels, starts, 0.5)
    assert factors[0] == pytest.approx(math.sqrt(0.5 / (1 / 12)))
    assert factors[1] == pytest.approx(math.sqrt(0.5 / (3 / 12)))
    assert factors[4] == factors[-1] == 1
    assert repeat_factor.repeat_factors(labels, starts, 0.001).max() == 1


def test_stream_is_detectron2s():
    """The first indices of RepeatFactorTrainingSampler(factors, seed=7) for these images."""
    found = first(RepeatFactorSampler(Toy(), threshold=0.5, seed=7), 40)
    assert found == GOLDEN
    in_order = first(RepeatFactorSampler(Toy(), threshold=0.5, shuffle=False, seed=7), 12)
    assert in_order == sorted(in_order)


def test_images_come_as_often_as_their_factors_say():
    sampler = RepeatFactorSampler(Toy(), threshold=0.5, seed=0)
    counts = np.bincount(first(sampler, 30_000), minlength=12)
    shares = counts / counts[4:].mean()
    np.testing.assert_allclose(shares[:5], sampler.factors[:5], rtol=0.05)


def test_processes_share_the_stream(monkeypatch):
    whole = first(RepeatFactorSampler(Toy(), threshold=0.5, seed=3), 60)
    for rank in range(3):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 3))
        part = first(RepeatFactorSampler(Toy(), threshold=0.5, seed=3), 20)
        assert part == whole[rank::3]


def test_training_goes_on_anywhere_with_the_same_bits():
    def batches(skip, count):
        sampler = RepeatFactorSampler(Toy(), threshold=0.5, seed=5)
        batch_sampler = BatchSampler(sampler, batch_size=3, drop_last=True)
        loader = DataLoader(Toy(), batch_sampler=batch_sampler, collate_fn=pseudo_collate)
        data = TrainingData(loader, seed=1)
        assert data.seed == 5 and data.describe()['threshold'] == 0.5
        # A sampler that was read before begins again.
        next(iter(sampler))
        return list(itertools.islice(data.batches(0, skip), count))

    whole = batches(0, 20)
    assert len({tuple(batch[1]) for batch in whole}) == 20
    for skip in (1, 6, 19):
        assert batches(skip, 20 - skip) == whole[skip:]


def test_other_data_sets_are_refused():
    with pytest.raises(TypeError, match='list cannot tell which categories'):
        RepeatFactorSampler([1, 2], seed=0)
    with pytest.raises(ValueError, match='threshold'):
        RepeatFactorSampler(Toy(), threshold=-1, seed=0)
    assert DATA_SAMPLERS.get('evamm.RepeatFactorSampler') is RepeatFactorSampler
    assert torch.equal(
        RepeatFactorSampler(Toy(), seed=0).factors, torch.ones(len(SETS), dtype=torch.float32)
    )


GOLDEN = [
    1,
    2,
    0,
    0,
    8,
    4,
    11,
    6,
    5,
    7,
    3,
    9,
    10,
    1,
    0,
    5,
    4,
    11,
    8,
    1,
    3,
    0,
    6,
    10,
    2,
    7,
    9,
    9,
    0,
    11,
    8,
    0,
    5,
    1,
    6,
    0,
    2,
    1,
    7,
    4,
]
