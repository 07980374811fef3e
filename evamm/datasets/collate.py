"""Batches of image-text pairs."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.structures import BaseDataElement

from evamm.registry import FUNCTIONS

_TOKENS = 'text_tokens'


class PairSamples(list):
    """A list of data samples that takes the tokens from process to process in one piece.

    Every tensor that a loader worker hands over by itself costs a file descriptor: a batch of 2048
    samples would need as many, more than most systems allow.
    """

    def __reduce__(self) -> tuple:
        tokens = [sample.get(_TOKENS) for sample in self]
        if (
            not all(isinstance(each, torch.Tensor) for each in tokens)
            or len({(each.shape, each.dtype) for each in tokens}) != 1
        ):
            return PairSamples, (list(self),)
        bare = []
        for sample in self:
            fields = dict(vars(sample))
            del fields[_TOKENS]
            bare.append((type(sample), fields))
        return _join, (bare, torch.stack(tokens).numpy())


def _join(bare: list[tuple[type, dict]], tokens: np.ndarray) -> PairSamples:
    samples = PairSamples()
    for (kind, fields), row in zip(bare, torch.from_numpy(tokens), strict=True):
        sample = kind.__new__(kind)
        vars(sample).update(fields)
        vars(sample)[_TOKENS] = row
        samples.append(sample)
    return samples


@FUNCTIONS.register_module()
def collate_pairs(batch: Sequence[dict]) -> dict:
    """Stack what can be stacked, as mmengine's ``default_collate``, for large batches of pairs.

    Args:
        batch: Samples of a data set, as :class:`evamm.datasets.transforms.PackPairInputs` gives
            them.

    Returns:
        ``inputs`` [B, C, H, W] and ``data_samples``, a list.
    """
    samples = [each['data_samples'] for each in batch]
    rest = [{key: each[key] for key in each if key != 'data_samples'} for each in batch]
    if not all(isinstance(sample, BaseDataElement) for sample in samples):
        return default_collate(batch)
    return {**default_collate(rest), 'data_samples': PairSamples(samples)}
