"""Which tar shards there are, and how many samples each holds."""

import glob
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine import fileio

from evamm.engine.errors import ConfigError

# Format of webdataset's own tool `widsindex`, which `tools/dataset_converters/index_shards.py`
# writes too.
LIST_KIND = 'wids-shard-index-v1'


class Shard(NamedTuple):
    """A tar file of samples.

    Args:
        url: Local path, or what webdataset opens: ``s3://``, ``https://``, ``pipe:command``, ...
        samples: Number of samples; None if nobody has counted them yet.
    """

    url: str
    samples: int | None = None


def is_remote(url: str) -> bool:
    """Whether a shard has to be fetched."""
    return url.startswith('pipe:') or '://' in url


def expand(patterns: str | Sequence[str], data_root: str = '') -> list[Shard]:
    """List the shards that a config names.

    Args:
        patterns: One or several of: a path or an address; with braces
            (``shard-{00000..00099}.tar``); a glob of local files; several of them joined by
            ``::``, as open_clip writes them; a folder of ``*.tar`` files; a ``.json`` list of
            shards with their numbers of samples.
        data_root: Folder, or address, that relative ones are below.

    Raises:
        ConfigError: A pattern names no shard.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    shards = []
    for pattern in patterns:
        for part in [pattern] if pattern.startswith('pipe:') else pattern.split('::'):
            found = _expand_one(_below(part, data_root))
            if not found:
                raise ConfigError(
                    f'ImageTextShards: `shards` {part!r} names no file (looked for '
                    f'{_below(part, data_root)}). {_GUIDE}'
                )
            shards.extend(found)
    if not shards:
        raise ConfigError(f'ImageTextShards: `shards` is empty. {_GUIDE}')
    return shards


_GUIDE = 'docs/en/data_preparation.md says how to prepare image-text data.'


def _below(part: str, root: str) -> str:
    part = part.removeprefix('file://')
    if not root or is_remote(part) or os.path.isabs(part):
        return os.path.expanduser(part) if not is_remote(part) else part
    return (
        f'{root.rstrip("/")}/{part}'
        if is_remote(root)
        else os.path.expanduser(os.path.join(root, part))
    )


def _expand_one(part: str) -> list[Shard]:
    if part.endswith('.json'):
        return read_list(part)
    names = expand_braces(part)
    if is_remote(part):
        return [Shard(name) for name in names]
    found = []
    for name in names:
        if os.path.isdir(name):
            found.extend(map(str, sorted(Path(name).glob('*.tar'))))
        elif glob.has_magic(name):
            found.extend(sorted(glob.glob(name, recursive=True)))
        else:
            found.append(name)
    return [Shard(name) for name in found]


def expand_braces(pattern: str) -> list[str]:
    """``a-{00..02}.tar`` and ``{a,b}.tar`` as a shell expands them."""
    if '{' not in pattern:
        return [pattern]
    try:
        from braceexpand import braceexpand
    except ImportError as error:
        raise ImportError(
            f'ImageTextShards: braces in {pattern!r} need the package braceexpand ({error}). '
            'Install the extra that brings it: pip install "evamm[clip]".'
        ) from error
    return list(braceexpand(pattern))


def read_list(path: str) -> list[Shard]:
    """Read a ``.json`` list of shards; relative ones are below its folder.

    Raises:
        ConfigError: The file is missing or is not such a list.
    """
    try:
        content = json.loads(fileio.get_text(path))
        kind = content['__kind__']
        shards = [Shard(str(each['url']), int(each['nsamples'])) for each in content['shardlist']]
    except FileNotFoundError as error:
        raise ConfigError(f'ImageTextShards: {path} does not exist. {_GUIDE}') from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f'ImageTextShards: {path} is not a list of shards ({type(error).__name__}: {error}); '
            'tools/dataset_converters/index_shards.py writes one.'
        ) from error
    if kind != LIST_KIND:
        raise ConfigError(f'ImageTextShards: {path} is of kind {kind!r}, expected {LIST_KIND!r}.')
    folder = path.rpartition('/')[0]
    return [Shard(_below(shard.url, folder), shard.samples) for shard in shards]


def list_content(shards: Sequence[Shard]) -> dict:
    """Content of a ``.json`` list of shards."""
    return {
        '__kind__': LIST_KIND,
        'wids_version': 1,
        'shardlist': [{'url': shard.url, 'nsamples': shard.samples} for shard in shards],
    }
