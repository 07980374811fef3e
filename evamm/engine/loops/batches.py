"""Copies and parts of batches, whatever they are made of."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.structures import BaseDataElement


def shallow_copy(batch: Any) -> Any:
    """New containers and data elements around the same tensors.

    Data preprocessors write into the elements of a batch (padded shapes, mixed labels); a batch
    that may be needed twice is handed to them as a copy.
    """
    if isinstance(batch, Mapping):
        return type(batch)({key: shallow_copy(value) for key, value in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, '_fields'):
        return type(batch)(*map(shallow_copy, batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(map(shallow_copy, batch))
    if isinstance(batch, BaseDataElement):
        copied = batch.new()
        for name in batch.keys():
            value = batch.get(name)
            if isinstance(value, BaseDataElement):
                copied.set_field(shallow_copy(value), name)
        return copied
    return batch


def batch_size(batch: Any) -> int:
    """Number of samples of a preprocessed batch: the length of its first list or tensor."""
    values = batch.values() if isinstance(batch, Mapping) else batch
    for value in values:
        if isinstance(value, (list, tuple, torch.Tensor)):
            return len(value)
        if isinstance(value, Mapping):
            return batch_size(value)
    raise TypeError('a batch without a list or tensor of samples cannot be split')


def part_of(batch: Any, start: int, stop: int) -> Any:
    """Samples ``start`` to ``stop`` of a preprocessed batch."""
    if isinstance(batch, Mapping):
        return type(batch)({key: part_of(value, start, stop) for key, value in batch.items()})
    if isinstance(batch, (list, torch.Tensor)):
        return batch[start:stop]
    if isinstance(batch, tuple):
        return tuple(part_of(value, start, stop) for value in batch)
    return batch
