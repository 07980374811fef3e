"""Several sources of image-text pairs, mixed by weight."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from evamm.engine.errors import ConfigError
from evamm.registry import DATASETS

from ..samplers.damaged_images import find_damage, substitute
from ..samplers.generators import derive_seed
from ..samplers.pass_order import MixtureOrder
from ..samplers.shard_sampler import draw_order


@DATASETS.register_module()
class ImageTextMixture(Dataset):
    """Map-style data sets of any kind, of which :class:`evamm.ShardSampler` draws by weight.

    Each source is read in its own order, pass after pass: a small one with a large weight comes
    round more often.

    Args:
        datasets: Data sets, or their configs.
        weights: Share of each source in the draws, any positive numbers; by size if None.
        metainfo: Information on the data set for others.
    """

    def __init__(
        self,
        datasets: Sequence[dict | Dataset],
        weights: Sequence[float] | None = None,
        metainfo: dict | None = None,
    ) -> None:
        self.datasets = [
            DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
            for dataset in datasets
        ]
        if not self.datasets:
            raise ConfigError('ImageTextMixture: `datasets` is empty.')
        sizes = [len(dataset) for dataset in self.datasets]
        if weights is None:
            weights = sizes
        if len(weights) != len(sizes) or not all(weight > 0 for weight in weights):
            raise ConfigError(
                f'ImageTextMixture: `weights` must be {len(sizes)} positive number(s), one for '
                f'each data set, found {list(weights)}.'
            )
        self.weights = [float(weight) for weight in weights]
        self.metainfo = dict(metainfo or getattr(self.datasets[0], 'metainfo', None) or {})
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def __len__(self) -> int:
        """Samples of all sources together."""
        return int(self._starts[-1])

    def draw_order(self, seed: int, **options: Any) -> MixtureOrder:
        """Order for :class:`evamm.ShardSampler`."""
        orders = [
            draw_order(dataset, derive_seed(seed, 1, number), **options)
            for number, dataset in enumerate(self.datasets)
        ]
        return MixtureOrder(
            orders,
            self._starts[:-1].tolist(),
            self.weights,
            derive_seed(seed, 0),
            shuffle=options.get('shuffle', True),
        )

    def _source(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} of a data set of {len(self)}')
        source = int(np.searchsorted(self._starts, index, side='right')) - 1
        return source, int(index - self._starts[source])

    def __getitem__(self, index: int) -> Any:
        source, number = self._source(index)
        return self.datasets[source][number]

    def get_data_info(self, index: int) -> dict:
        """What the pipeline of the source gets."""
        source, number = self._source(index)
        return self.datasets[source].get_data_info(number)

    def find_damage(self, index: int) -> tuple[str, str] | None:
        """Name of a sample and what is wrong with it; None if it is sound or nobody can tell."""
        source, number = self._source(index)
        return find_damage(self.datasets[source], number)

    def substitute(self, index: int, seed: int) -> int:
        """Another sample of the same source."""
        source, number = self._source(index)
        return int(self._starts[source]) + substitute(self.datasets[source], number, seed)
