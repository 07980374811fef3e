"""Batches of numbered draws, from any sampler, from any position on."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mmengine.dist import get_rank, get_world_size
from torch.utils.data import Sampler

from .generators import (
    derive_seed,
    get_generators,
    preserved_generators,
    seed_generators,
    set_generators,
)


class Draw(NamedTuple):
    """One sample of a training run.

    Args:
        epoch: Pass over the data.
        number: Position in the pass, counted over all processes.
        index: What the sampler gave: the argument of ``dataset[index]``.
    """

    epoch: int
    number: int
    index: object


class DrawnBatchSampler(Sampler):
    """Batches of another batch sampler as :class:`Draw` objects.

    It can begin at any batch: the indices before it are drawn, nothing is loaded. Works with every
    sampler whose order follows from its seed and epoch; one that uses the global generators gets
    private ones here, so that its order follows from seed and epoch too.

    Args:
        batches: Batch sampler, such as torch's or mmdet's ``AspectRatioBatchSampler``.
        seed: Seed of the private generators, equal on all processes.
    """

    def __init__(self, batches: Iterable[list], seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self._epoch = 0
        self._skip = 0

    @property
    def sampler(self) -> object:
        """Sampler below, for hooks that call its ``set_epoch``."""
        return getattr(self.batches, 'sampler', None)

    @property
    def batch_size(self) -> int | None:
        """Size of a full batch."""
        return getattr(self.batches, 'batch_size', None)

    def start(self, epoch: int, skip: int = 0) -> None:
        """Let the next pass be pass ``epoch`` without its first ``skip`` batches."""
        self._epoch = epoch
        self._skip = skip

    def __iter__(self) -> Iterator[list[Draw]]:
        """One pass; the one after it is the next epoch from its beginning."""
        # Read now: torch's loader asks for an iterator twice and uses the second.
        return self._draws(self._epoch, self._skip)

    def _draws(self, epoch: int, skip: int) -> Iterator[list[Draw]]:
        rank, world_size = get_rank(), get_world_size()
        number = 0
        with preserved_generators():
            seed_generators(derive_seed(self.seed, epoch))
            batches = iter(self.batches)
            for _ in range(skip):
                number += len(next(batches, ()))
            private = get_generators()
        while True:
            with preserved_generators():
                set_generators(private)
                batch = next(batches, None)
                private = get_generators()
            if batch is None:
                self.start(epoch + 1)
                return
            yield [
                Draw(epoch, (number + i) * world_size + rank, index)
                for i, index in enumerate(batch)
            ]
            number += len(batch)

    def __len__(self) -> int:
        """Batches in a full pass."""
        return len(self.batches)
