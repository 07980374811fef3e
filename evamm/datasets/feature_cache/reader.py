"""Reading a feature cache while training."""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from .meta import FeatureCacheError, is_done, path_key, read_meta

_OPEN_SHARDS = 512  # memory maps that a process keeps


class FeatureCache:
    """Reads a cache; open it before the loader's workers start and they share the index.

    Args:
        folder: Folder of the cache.

    Raises:
        FeatureCacheError: No cache, not written to its end, or files are missing.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder, self.meta = Path(folder), read_meta(folder)
        missing = [s for s in range(self.meta.num_shards) if not is_done(folder, s)]
        if missing:
            raise FeatureCacheError(
                f'{folder}: {len(missing)} of {self.meta.num_shards} shards are not written, the '
                f'first is {missing[0]}; run tools/cache_teacher.py with the same arguments again.'
            )
        self._keys = np.load(self.folder / 'keys.npy', mmap_mode='r')
        self._rows = np.load(self.folder / 'rows.npy', mmap_mode='r')
        self._open = lru_cache(_OPEN_SHARDS)(self._map)

    def __getstate__(self) -> dict:
        return {'folder': self.folder}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state['folder'])

    def _map(self, shard: int) -> list[np.ndarray]:
        kinds = ['features'] if self.meta.dtype == 'float16' else ['features', 'scales']
        arrays = []
        for kind in kinds:
            path = self.folder / f'{kind}_{shard:06d}.npy'
            try:
                array = np.load(path, mmap_mode='r')
                shape = (len(self.meta.rows_of(shard)), self.meta.num_views, self.meta.tokens)
                shape += (self.meta.dims,) if kind == 'features' else ()
                if array.shape != shape:
                    raise ValueError(f'shape {array.shape}, expected {shape}')
                arrays.append(array)
            except (OSError, ValueError) as error:
                raise FeatureCacheError(
                    f'{path}: missing or damaged ({error}); delete done_{shard:06d}.json and run '
                    'tools/cache_teacher.py with the same arguments again.'
                ) from error
        return arrays

    def row(self, path: str) -> int:
        """Row of an image.

        Raises:
            FeatureCacheError: The image is not in the cache.
        """
        key = np.uint64(path_key(path))
        at = int(np.searchsorted(self._keys, key))
        if at == len(self._keys) or self._keys[at] != key:
            raise FeatureCacheError(
                f'{path} is not in the feature cache {self.folder}; it was written for other paths '
                '(data_root and data_prefix must be the same) or another dataset.'
            )
        return int(self._rows[at])

    def read(self, path: str, view: int, tokens: np.ndarray | None = None) -> np.ndarray:
        """Features of one crop.

        Args:
            path: Path of the image as the dataset gives it.
            view: Number of the crop.
            tokens: bool [tokens], those to read; None for all.

        Returns:
            float16 [n, dims].
        """
        row = self.row(path)
        if tokens is not None and len(tokens) != self.meta.tokens:
            raise FeatureCacheError(
                f'{self.folder}: holds {self.meta.tokens} patches per image, the masks have '
                f'{len(tokens)}; input_size of the mask and img_size of the teacher must agree.'
            )
        arrays = self._open(row // self.meta.shard_size)
        parts = [array[row % self.meta.shard_size, view] for array in arrays]
        if np.isnan(parts[-1].flat[0]):
            shard = row // self.meta.shard_size
            raise FeatureCacheError(
                f'{path} could not be read when {self.folder} was written, and now it can: delete '
                f'done_{shard:06d}.json and run tools/cache_teacher.py with the same arguments '
                'again.'
            )
        parts = [np.array(part) if tokens is None else part[tokens] for part in parts]
        if len(parts) == 1:
            return parts[0]
        return (parts[0] * parts[1][:, None].astype(np.float32)).astype(np.float16)
