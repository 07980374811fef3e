"""Endless orders of samples that can be entered anywhere: functions of seed and position."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np

from .generators import derive_seed


class ShardOrder:
    """Pass after pass over samples that lie in shards, a few shards at a time.

    Shards are put into a new order for every pass. The samples of ``window`` shards that follow
    each other are mixed completely: neighbours in a file become strangers, but only ``window``
    files are in use at a time. Nothing is as long as the data set but the list of shards.

    Args:
        sizes: Samples of every shard.
        seed: Seed of the order.
        shuffle: Mix; else every pass is the same, in the order of the shards.
        window: Number of shards that are mixed.
        replacement: Draw the shards of a pass with replacement, as open_clip's
            ``--dataset-resampled``: a pass is as many shards, some of them several times, others
            not at all.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seed: int,
        *,
        shuffle: bool = True,
        window: int = 16,
        replacement: bool = False,
    ) -> None:
        if window < 1:
            raise ValueError(f'`window` must be at least 1, found {window}')
        if replacement and not shuffle:
            raise ValueError('`replacement` needs `shuffle`')
        self.sizes = np.asarray(sizes, np.int64)
        if not self.sizes.sum() > 0:
            raise ValueError('there are no samples to draw from')
        self.seed = seed
        self.shuffle = shuffle
        self.window = window
        self.replacement = replacement
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self._shards = lru_cache(maxsize=2)(self._shards_of)

    def indices(self, start: int) -> Iterator[int]:
        """The order from position ``start`` on; index ``i`` is sample ``i`` of all shards."""
        number = 0
        while start >= (length := self._length(number)):
            start -= length
            number += 1
        while True:
            yield from self._pass(number, start)
            number, start = number + 1, 0

    def _length(self, number: int) -> int:
        """Samples of a pass."""
        if not self.replacement:
            return int(self._starts[-1])
        return int(self.sizes[self._shards(number)].sum())

    def _shards_of(self, number: int) -> np.ndarray:
        """Order of the shards in a pass."""
        count = len(self.sizes)
        if not self.shuffle:
            return np.arange(count)
        generator = np.random.default_rng(derive_seed(self.seed, number))
        if not self.replacement:
            return generator.permutation(count)
        # Draws of shards without a sample would make a pass that never ends.
        return generator.choice(np.flatnonzero(self.sizes), count)

    def _pass(self, number: int, start: int) -> Iterator[int]:
        shards = self._shards(number)
        for first in range(0, len(shards), self.window):
            chosen = shards[first : first + self.window]
            sizes = self.sizes[chosen]
            total = int(sizes.sum())
            if start >= total:
                start -= total
                continue
            samples = np.repeat(self._starts[chosen] - np.cumsum(sizes) + sizes, sizes)
            samples += np.arange(total)
            if self.shuffle:
                generator = np.random.default_rng(derive_seed(self.seed, number, first))
                samples = generator.permutation(samples)
            yield from samples[start:].tolist()
            start = 0


class MixtureOrder:
    """Several orders, mixed by weight.

    Of any ``block`` draws each source has its share to within one draw. A source is read in its own
    order, pass after pass, wherever the mixture is entered.

    Args:
        orders: Order of every source.
        offsets: What is added to the indices of every source.
        weights: Share of every source; any positive numbers.
        seed: Seed of the mixture.
        shuffle: Mix the sources; else they follow each other inside a block.
    """

    def __init__(
        self,
        orders: Sequence[object],
        offsets: Sequence[int],
        weights: Sequence[float],
        seed: int,
        *,
        shuffle: bool = True,
    ) -> None:
        self.orders = list(orders)
        self.offsets = list(offsets)
        self.seed = seed
        self.shuffle = shuffle
        shares = np.asarray(weights, np.float64)
        shares = shares / shares.sum()
        # Large enough for two draws of the rarest source.
        self.block = max(1024, int(np.ceil(2 / shares.min())))
        self._bounds = np.concatenate([[0], np.cumsum(shares)])
        self._bounds[-1] = 1

    def _counts(self, draws: int) -> np.ndarray:
        """Draws of every source among the first ``draws``, a multiple of ``block``."""
        return np.diff(np.floor(draws * self._bounds + 0.5).astype(np.int64))

    def _sources(self, number: int) -> np.ndarray:
        """Source of every draw of a block."""
        counts = self._counts((number + 1) * self.block) - self._counts(number * self.block)
        sources = np.repeat(np.arange(len(counts)), counts)
        if self.shuffle:
            generator = np.random.default_rng(derive_seed(self.seed, number))
            sources = generator.permutation(sources)
        return sources

    def indices(self, start: int) -> Iterator[int]:
        """The order from position ``start`` on."""
        number, start = divmod(start, self.block)
        begun = self._counts(number * self.block)
        past = self._sources(number)[:start]
        begun += np.bincount(past, minlength=len(self.orders))
        draws = [order.indices(int(at)) for order, at in zip(self.orders, begun, strict=True)]
        while True:
            for source in self._sources(number)[start:].tolist():
                yield self.offsets[source] + next(draws[source])
            number, start = number + 1, 0


def take(order: object, start: int, stop: int) -> Iterator[int]:
    """Positions ``start`` to ``stop`` of an order."""
    return islice(order.indices(start), stop - start)
