"""The order of training data that is too large to be shuffled as a whole."""

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from evamm.registry import DATA_SAMPLERS

from .pass_order import ShardOrder, take


@DATA_SAMPLERS.register_module()
class ShardSampler(Sampler):
    """Draws from shards and mixtures in an order that follows from seed, epoch and position.

    An epoch is the next ``epoch_samples`` of an endless order; each process has a part of it, in
    one piece, so that it has few files open. No sample comes twice before all have come once. A
    run goes on anywhere without reading what is past.

    Args:
        dataset: :class:`evamm.ImageTextShards`, :class:`evamm.ImageTextMixture`, or any other
            map-style data set, which is shuffled as a whole.
        epoch_samples: Samples of an epoch, over all processes; the data set once if None.
        shuffle: Mix; see :class:`ShardOrder`.
        window: Number of shards that each process mixes at a time.
        replacement: Draw shards with replacement; see :class:`ShardOrder`.
        seed: Seed of the order, equal on all processes; drawn if None.
    """

    def __init__(
        self,
        dataset: Any,
        epoch_samples: int | None = None,
        shuffle: bool = True,
        window: int = 16,
        replacement: bool = False,
        seed: int | None = None,
    ) -> None:
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        total = len(dataset) if epoch_samples is None else epoch_samples
        if total < self.world_size:
            raise ValueError(
                f'ShardSampler: an epoch of {total} sample(s) is too small for {self.world_size} '
                'process(es); set `epoch_samples` higher, or add data.'
            )
        self.epoch_samples = total
        self.shuffle = shuffle
        self.window = window
        self.replacement = replacement
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Tell which epoch the next pass is."""
        self.epoch = epoch

    def describe(self) -> dict[str, Any]:
        """What the order follows from besides seed and number of samples, as plain values."""
        return {
            'epoch_samples': self.epoch_samples,
            'shuffle': self.shuffle,
            'window': self.window,
            'replacement': self.replacement,
            'weights': getattr(self.dataset, 'weights', None),
        }

    def __len__(self) -> int:
        """Samples of this process in an epoch; the same for all."""
        return self.epoch_samples // self.world_size

    def __iter__(self) -> Iterator[int]:
        order = draw_order(
            self.dataset,
            self.seed,
            shuffle=self.shuffle,
            window=self.window,
            replacement=self.replacement,
        )
        start = self.epoch * self.epoch_samples + self.rank * len(self)
        return take(order, start, start + len(self))


def draw_order(dataset: Any, seed: int, **options: Any) -> Any:
    """Order of a data set: its own, or a random one of all samples.

    Args:
        dataset: A data set, with a method ``draw_order`` or without.
        seed: Seed of the order.
        options: Further arguments of :class:`ShardOrder`.
    """
    if hasattr(dataset, 'draw_order'):
        return dataset.draw_order(seed, **options)
    return ShardOrder([len(dataset)], seed, **options)
