"""Batches of pairs, and their way from a loader worker."""

import resource

import numpy as np
import torch
from mmengine.registry import FUNCTIONS
from torch.utils.data import DataLoader, Dataset

from evamm.datasets.collate import PairSamples, collate_pairs
from evamm.registry import TRANSFORMS


class Pairs(Dataset):
    def __init__(self, texts=1):
        self.texts = texts
        self.pack = TRANSFORMS.build({'type': 'evamm.PackPairInputs'})

    def __len__(self):
        return 400

    def __getitem__(self, index):
        tokens = torch.arange(77) + index
        return self.pack(
            {
                'img': np.full((2, 2, 3), index % 256, np.uint8),
                'img_path': f'{index}.jpg',
                'text': f'text {index}',
                'text_tokens': tokens if self.texts == 1 else tokens.repeat(index % 3 + 1, 1),
                'not packed': 1,
            }
        )


def check(batch, first=0):
    assert isinstance(batch['data_samples'], list)
    assert batch['inputs'].shape == (len(batch['data_samples']), 3, 2, 2)
    for index, sample in enumerate(batch['data_samples'], first):
        assert torch.equal(sample.text_tokens, torch.arange(77) + index)
        assert (sample.text, sample.img_path) == (f'text {index}', f'{index}.jpg')
        assert sample.to('cpu').text_tokens.dtype == torch.int64
    assert 'not packed' not in batch['data_samples'][0]


def test_a_config_finds_it_by_name():
    assert FUNCTIONS.get('evamm.collate_pairs') is collate_pairs


def test_large_batches_come_from_a_worker_with_few_open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        loader = DataLoader(Pairs(), batch_size=400, num_workers=1, collate_fn=collate_pairs)
        check(next(iter(loader)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_workers_and_with_lists_of_texts():
    check(next(iter(DataLoader(Pairs(), batch_size=5, collate_fn=collate_pairs))))
    loader = DataLoader(Pairs(texts=3), batch_size=4, num_workers=1, collate_fn=collate_pairs)
    samples = next(iter(loader))['data_samples']
    assert [len(sample.text_tokens) for sample in samples] == [1, 2, 3, 1]
    assert isinstance(samples, PairSamples)
