"""What a feature cache holds, and which of its shards are there."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VERSION = 1
DTYPES = ('float16', 'int8')


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
    return mark_of(folder, shard).exists()


def mark_of(folder: str | os.PathLike, shard: int) -> Path:
    """The file that says that a shard has been written to its end."""
    return Path(folder) / f'done_{shard:06d}.json'
