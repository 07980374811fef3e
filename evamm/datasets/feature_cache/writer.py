"""Writing a feature cache: shards that appear whole or not at all."""

import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from evamm.checkpoints import file_sha256

from .meta import CacheMeta, FeatureCacheError, is_done, mark_of, path_key, read_meta


def create_cache(folder: str | os.PathLike, meta: CacheMeta, paths: Sequence[str]) -> None:
    """Begins a cache, or goes on with one of the same content.

    Raises:
        FeatureCacheError: There is another cache in the folder, or a path occurs twice.
    """
    folder = Path(folder)
    if (folder / 'meta.json').exists():
        _check_same(read_meta(folder), meta, folder)
        _check_space(folder, meta)
        return
    if next(folder.glob('done_*.json'), None):
        raise FeatureCacheError(
            f'{folder}: holds shards, but its meta.json, which says of what, is gone; use another '
            'folder, or delete this one.'
        )
    keys = np.array([path_key(path) for path in paths], np.uint64)
    rows = np.argsort(keys, kind='stable')
    twice = np.flatnonzero(np.diff(keys[rows]) == 0)
    if len(twice):
        raise FeatureCacheError(
            f'{paths[rows[twice[0]]]} occurs twice in the dataset; a cache needs every image once.'
        )
    folder.mkdir(parents=True, exist_ok=True)
    _check_space(folder, meta)
    _write_array(folder / 'keys.npy', keys[rows])
    _write_array(folder / 'rows.npy', rows.astype(np.int64))
    _write_text(folder / 'meta.json', json.dumps(asdict(meta), indent=1))


@contextmanager
def writing(folder: str | os.PathLike) -> Iterator[None]:
    """Keeps other runs from writing into a folder at the same time; a killed one does not count.

    Two runs would write the same files; one could mark a shard as done that the other one has just
    begun again.

    Raises:
        FeatureCacheError: Another run writes there.
    """
    import fcntl

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('a+') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise FeatureCacheError(
                f'{folder}: another run ({lock.read()}) is writing here; wait for it, or use '
                'another folder. To share the work, start one run of several processes.'
            ) from None
        except OSError:
            pass  # a file system without locks
        lock.truncate(0)
        lock.write(f'process {os.getpid()} on {socket.gethostname()}')
        lock.flush()
        yield


def _check_space(folder: Path, meta: CacheMeta) -> None:
    """Is there room for the shards that are not written?"""
    left = meta.num_shards - sum(1 for _ in folder.glob('done_*.json'))
    needed = meta.nbytes * left / max(meta.num_shards, 1)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise FeatureCacheError(
            f'{folder}: the features need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are '
            'free; use dtype int8, fewer views, fewer images or another disk.'
        )


def _check_same(found: CacheMeta, expected: CacheMeta, folder: Path) -> None:
    for name, value in asdict(expected).items():
        other = getattr(found, name)
        if name == 'paths_sha256' and value != other:
            raise FeatureCacheError(
                f'{folder}: was written for {found.images} images with other paths, or in another '
                'order; use another folder, or delete this one.'
            )
        if value != other:
            raise FeatureCacheError(
                f'{folder}: was written with {name}={other!r}, expected {value!r}; use another '
                'folder, or delete this one.'
            )


class ShardWriter:
    """Writes one shard; it counts once :meth:`finish` has returned.

    Args:
        folder: Folder of :func:`create_cache`.
        shard: Number of the shard.
    """

    def __init__(self, folder: str | os.PathLike, shard: int) -> None:
        self.folder, self.shard, self.meta = Path(folder), shard, read_meta(folder)
        shape = (len(self.meta.rows_of(shard)), self.meta.num_views, self.meta.tokens)
        self._files = [self._create('features', (*shape, self.meta.dims), self.meta.dtype)]
        if self.meta.dtype == 'int8':
            self._files.append(self._create('scales', shape, 'float16'))
        self._missing = np.ones(shape[:2], bool)

    def _create(self, kind: str, shape: tuple[int, ...], dtype: str) -> tuple[Path, np.memmap]:
        target = self.folder / f'{kind}_{self.shard:06d}.npy'
        temporary = target.with_name(f'.{target.name}.tmp')
        try:
            array = np.lib.format.open_memmap(temporary, mode='w+', dtype=dtype, shape=shape)
            if hasattr(os, 'posix_fallocate'):
                # Without its blocks, a full disk would end the process when a page is written.
                with temporary.open('r+b') as file:
                    os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise FeatureCacheError(
                f'{temporary}: no room for shard {self.shard} ({error.strerror}). Finished shards '
                'are kept: make room and run the same command again.'
            ) from error
        return target, array

    def write(self, row: int, view: int, features: np.ndarray) -> None:
        """Stores the features of one crop.

        Args:
            row: Row of the image in the dataset.
            view: Number of the crop.
            features: float [tokens, dims].

        Raises:
            FeatureCacheError: Wrong shape, or not finite.
        """
        expected = (self.meta.tokens, self.meta.dims)
        if features.shape != expected:
            raise FeatureCacheError(
                f'the teacher gave features of shape {features.shape}, expected {expected}.'
            )
        if not np.isfinite(features).all():
            raise FeatureCacheError(f'the teacher gave NaN or infinity for image {row}.')
        local = row - self.meta.rows_of(self.shard).start
        if self.meta.dtype == 'float16':
            self._files[0][1][local, view] = _as_float16(features)
        else:
            values, scales = quantize(features)
            self._files[0][1][local, view] = values
            self._files[1][1][local, view] = scales
        self._missing[local, view] = False

    def skip(self, row: int, view: int) -> None:
        """Says that there are no features of a crop, because its image cannot be read."""
        local = row - self.meta.rows_of(self.shard).start
        self._files[-1][1][local, view] = np.nan
        self._missing[local, view] = False

    def finish(self) -> None:
        """Forces the shard to disk and marks it as done.

        Raises:
            FeatureCacheError: A crop has not been written.
        """
        if self._missing.any():
            row, view = np.argwhere(self._missing)[0]
            raise FeatureCacheError(
                f'shard {self.shard}: view {view} of image {row} of it was never written.'
            )
        hashes = {}
        for target, array in self._files:
            array.flush()
            temporary = target.with_name(f'.{target.name}.tmp')
            hashes[target.name] = file_sha256(temporary)
            _sync(temporary)
            os.replace(temporary, target)
        self._files = []
        _write_text(mark_of(self.folder, self.shard), json.dumps(hashes))


def _as_float16(features: np.ndarray) -> np.ndarray:
    limit = np.finfo(np.float16).max
    return np.clip(features, -limit, limit).astype(np.float16)


def quantize(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric 8-bit values with one scale per token.

    Args:
        features: float [..., dims].

    Returns:
        int8 [..., dims] and float16 [...]: ``features`` is about ``values * scales[..., None]``.
    """
    features = features.astype(np.float32)
    scales = (np.abs(features).max(-1) / 127).astype(np.float16)
    # The smallest float16 keeps a token of zeros from dividing by zero.
    scales = np.maximum(scales, np.finfo(np.float16).smallest_subnormal)
    values = np.rint(features / scales[..., None].astype(np.float32))
    return np.clip(values, -127, 127).astype(np.int8), scales


def damaged_shards(folder: str | os.PathLike) -> list[int]:
    """Finished shards whose files differ from what was written; reads everything."""
    folder, damaged = Path(folder), []
    for shard in range(read_meta(folder).num_shards):
        if is_done(folder, shard):
            hashes = json.loads(mark_of(folder, shard).read_text())
            paths = [folder / name for name in hashes]
            if any(not p.exists() or file_sha256(p) != hashes[p.name] for p in paths):
                damaged.append(shard)
    return damaged


def discard_shard(folder: str | os.PathLike, shard: int) -> None:
    """Takes the mark of a shard away, so that it is written again."""
    mark_of(folder, shard).unlink(missing_ok=True)


def _write_array(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f'.{path.name}.tmp')
    with temporary.open('wb') as file:
        np.save(file, array)
    _sync(temporary)
    os.replace(temporary, path)


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_text(text)
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
