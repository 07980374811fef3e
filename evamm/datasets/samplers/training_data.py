"""The batches of a training run, from any position on."""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from torch.utils.data import DataLoader, IterableDataset

from .damaged_images import DamageCount
from .drawn_batches import DrawnBatchSampler
from .drawn_dataset import DrawnDataset


class TrainingData:
    """Makes the batches of a data loader a function of seed, epoch and position.

    Two things are put into the loader: a batch sampler that can begin anywhere and a dataset that
    seeds the augmentations of every sample. A loader of an iterable dataset or without batches has
    no indices to count; there, past batches are loaded again and thrown away after a resume.
    Shards of image-text pairs have indices (:class:`evamm.ImageTextShards`).

    Args:
        loader: Data loader of the training set; changed in place.
        seed: Seed for samplers that have none.
        max_damaged: Largest share of images that may be damaged; see :class:`DamageCount`.
    """

    def __init__(self, loader: DataLoader, seed: int, max_damaged: float = 0.01) -> None:
        self.loader = loader
        self.damage = None
        self.indexed = (
            isinstance(loader, DataLoader)
            and loader.batch_sampler is not None
            and not isinstance(loader.dataset, IterableDataset)
        )
        if not self.indexed:
            return
        self.damage = DamageCount(len(loader.dataset), max_damaged)
        own_seed = getattr(self.sampler, 'seed', None)
        seed = seed if own_seed is None else own_seed
        # torch guards these attributes because most of their values would not fit together.
        parts = {
            'dataset': DrawnDataset(loader.dataset, seed),
            'batch_sampler': DrawnBatchSampler(loader.batch_sampler, seed),
            # Without one of its own, the loader takes a number from the run's at every start.
            'generator': torch.Generator().manual_seed(seed),
        }
        for name, part in parts.items():
            object.__setattr__(loader, name, part)

    @property
    def sampler(self) -> Any:
        """The sampler that decides the order."""
        inner = getattr(self.loader.batch_sampler, 'sampler', None)
        return inner if inner is not None else self.loader.sampler

    @property
    def seed(self) -> int | None:
        """Seed of order and augmentations; None if the loader has no indices."""
        return self.loader.batch_sampler.seed if self.indexed else None

    @seed.setter
    def seed(self, seed: int) -> None:
        if not self.indexed:
            return
        self.loader.batch_sampler.seed = self.loader.dataset._seed = seed
        if hasattr(self.sampler, 'seed'):
            self.sampler.seed = seed

    def describe(self) -> dict[str, Any]:
        """What the order of the samples follows from besides the seed, as plain values."""
        if not self.indexed:
            return {}
        described = {
            'samples': len(self.loader.dataset),
            'batch_size': self.loader.batch_sampler.batch_size,
            'processes': get_world_size(),
        }
        if hasattr(self.sampler, 'describe'):
            described.update(self.sampler.describe())
        return described

    def set_epoch(self, epoch: int) -> None:
        """Tell the sampler which pass begins."""
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def count_damage(self) -> None:
        """Take note of images that could not be used; called once per batch.

        Raises:
            DamagedDataError: There are too many.
        """
        if self.indexed:
            batch_size = self.loader.batch_sampler.batch_size or 1
            self.damage.add(self.loader.dataset._reports.take(), drawn=batch_size)

    def _rewind(self) -> None:
        """Let an infinite sampler of the OpenMMLab libraries begin at its beginning."""
        if hasattr(self.sampler, '_indices_of_rank'):
            self.sampler.indices = self.sampler._indices_of_rank()

    def batches(self, epoch: int, skip: int) -> Iterator[Any]:
        """The batches of pass ``epoch`` without the first ``skip``, which are not loaded."""
        if self.indexed:
            self._rewind()
            self.loader.batch_sampler.start(epoch, skip)
            yield from self.loader
            return
        if skip:
            print_log(
                f'This data loader has no indices to count: loading {skip} batches again to get '
                'to the place where the run was interrupted; their augmentations will differ.',
                logger='current',
                level=logging.WARNING,
            )
        for position, batch in enumerate(self.loader):
            if position >= skip:
                yield batch
