"""Teacher features on disk: written once, memory-mapped while training.

A cache is a folder:

- ``meta.json``: what the features are (:class:`CacheMeta`);
- ``keys.npy``: uint64 [images], hashes of the image paths in ascending order, and ``rows.npy``:
  int64 [images], the row of each in the shards (the order of the dataset);
- ``features_<s>.npy``: [rows, views, tokens, dims] of shard s, float16 or int8;
- ``scales_<s>.npy``: float16 [rows, views, tokens] for int8, one scale per token;
- ``done_<s>.json``: sha256 of the files of shard s. It appears last, so a shard without it has not
  been written to its end and is written again.

The features of a crop whose image could not be read are NaN (with int8, their scales are).
"""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from evamm.checkpoints import file_sha256

VERSION = 1
DTYPES = ('float16', 'int8')
_OPEN_SHARDS = 512  # memory maps that a process keeps


class FeatureCacheError(RuntimeError):
    """A feature cache is incomplete, damaged or belongs to something else."""


@dataclass(frozen=True)
class CacheMeta:
    """What a cache holds.

    Args:
        images: Number of images.
        tokens: Patch tokens per image.
        dims: Width of a feature.
        num_views: Crops per image.
        seed: Seed that the crops follow from.
        crops: The transforms that make a crop, as text.
        teacher: The teacher, as text.
        teacher_sha256: Hash of its weights.
        dtype: ``'float16'`` or ``'int8'`` with one scale per token.
        shard_size: Images per shard.
        paths_sha256: Hash of all image paths in order.
        version: Of this layout.
    """

    images: int
    tokens: int
    dims: int
    num_views: int
    seed: int
    crops: str
    teacher: str
    teacher_sha256: str
    dtype: str
    shard_size: int
    paths_sha256: str
    version: int = VERSION

    @property
    def num_shards(self) -> int:
        return -(-self.images // self.shard_size)

    @property
    def nbytes(self) -> int:
        """Size of all features in bytes."""
        per_token = self.dims * 2 if self.dtype == 'float16' else self.dims + 2
        return self.images * self.num_views * self.tokens * per_token

    def rows_of(self, shard: int) -> range:
        """Rows of the dataset that a shard holds."""
        start = shard * self.shard_size
        return range(start, min(start + self.shard_size, self.images))


def path_key(path: str) -> int:
    """The 64-bit hash that an image is found by."""
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), 'little')


def hash_paths(paths: Sequence[str]) -> str:
    """The sha256 of a list of paths."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.encode() + b'\0')
    return digest.hexdigest()


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


def read_meta(folder: str | os.PathLike) -> CacheMeta:
    """What the cache in a folder holds.

    Raises:
        FeatureCacheError: There is none, or it cannot be understood.
    """
    path = Path(folder) / 'meta.json'
    try:
        meta = CacheMeta(**json.loads(path.read_text()))
    except FileNotFoundError:
        raise FeatureCacheError(
            f'{folder}: no feature cache here (meta.json is missing); write one with '
            'tools/cache_teacher.py.'
        ) from None
    except (ValueError, TypeError) as error:
        raise FeatureCacheError(f'{path}: cannot be understood ({error}).') from error
    if meta.version != VERSION or meta.dtype not in DTYPES:
        raise FeatureCacheError(
            f'{path}: version {meta.version} with {meta.dtype} is not version {VERSION} with '
            f'{" or ".join(DTYPES)}; write the cache again.'
        )
    return meta


def is_done(folder: str | os.PathLike, shard: int) -> bool:
    """Whether a shard has been written to its end."""
    return _mark(folder, shard).exists()


def _mark(folder: str | os.PathLike, shard: int) -> Path:
    return Path(folder) / f'done_{shard:06d}.json'


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
        _write_text(_mark(self.folder, self.shard), json.dumps(hashes))


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


def damaged_shards(folder: str | os.PathLike) -> list[int]:
    """Finished shards whose files differ from what was written; reads everything."""
    folder, damaged = Path(folder), []
    for shard in range(read_meta(folder).num_shards):
        if is_done(folder, shard):
            hashes = json.loads(_mark(folder, shard).read_text())
            paths = [folder / name for name in hashes]
            if any(not p.exists() or file_sha256(p) != hashes[p.name] for p in paths):
                damaged.append(shard)
    return damaged


def discard_shard(folder: str | os.PathLike, shard: int) -> None:
    """Takes the mark of a shard away, so that it is written again."""
    _mark(folder, shard).unlink(missing_ok=True)


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
