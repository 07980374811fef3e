"""A dataset whose augmentations follow from the number of the draw."""

from typing import Any

from torch.utils.data import Dataset, get_worker_info

from .damaged_images import Damage, DamagedDataError, DamageReports, find_damage, substitute
from .drawn_batches import Draw
from .generators import derive_seed, preserved_generators, seed_generators

_OWN = ('_dataset', '_seed', '_reports')
_TRIES = 10


class DrawnDataset(Dataset):
    """Seeds Python, NumPy and torch for every draw; otherwise it is the dataset it wraps.

    What a draw looks like then depends on the seed of the run and on the draw's number, not on the
    number of workers, on prefetching or on where the run was resumed. Attributes are read from and
    written to the wrapped dataset.

    An image that cannot be decoded is replaced by another one, which follows from seed and draw
    as well, and reported.

    Args:
        dataset: Map-style dataset.
        seed: Seed of the run, equal on all processes.
    """

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._reports = DamageReports()

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or name in _OWN:  # not there yet while being unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._dataset, name, value)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: Any) -> Any:
        """A sample: of a :class:`Draw`, or of an index as the wrapped dataset takes it."""
        if isinstance(index, Draw):
            return self.__getitems__([index])[0]
        return self._dataset[index]

    def __getitems__(self, draws: list) -> list:
        """The samples of one batch (the method that torch's data loader looks for)."""
        if not isinstance(draws[0], Draw):
            return [self._dataset[index] for index in draws]
        if get_worker_info() is not None:  # nothing else uses a worker's generators
            return [self._load(draw) for draw in draws]
        with preserved_generators():
            return [self._load(draw) for draw in draws]

    def _load(self, draw: Draw) -> Any:
        index = draw.index
        for attempt in range(1, _TRIES + 1):
            seed_generators(derive_seed(self._seed, draw.epoch, draw.number))
            try:
                return self._dataset[index]
            except Exception as error:
                damage = find_damage(self._dataset, index)
                if damage is None:
                    raise  # not the image's fault
                if attempt == _TRIES:
                    path, reason = damage
                    raise DamagedDataError(
                        f'{_TRIES} samples that were drawn in place of each other cannot be used; '
                        f'the last one is {path} ({reason}). Repair the data.'
                    ) from error
            self._reports.put(Damage(index, *damage))
            seed = derive_seed(self._seed, draw.epoch, draw.number, attempt)
            index = substitute(self._dataset, index, seed)
