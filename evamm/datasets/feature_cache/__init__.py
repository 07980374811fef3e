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

from .meta import DTYPES, CacheMeta, FeatureCacheError, hash_paths, is_done, path_key, read_meta
from .reader import FeatureCache
from .writer import ShardWriter, create_cache, damaged_shards, discard_shard, quantize, writing

__all__ = [
    'DTYPES',
    'CacheMeta',
    'FeatureCache',
    'FeatureCacheError',
    'ShardWriter',
    'create_cache',
    'damaged_shards',
    'discard_shard',
    'hash_paths',
    'is_done',
    'path_key',
    'quantize',
    'read_meta',
    'writing',
]
