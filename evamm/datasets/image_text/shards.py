"""Image-text pairs in WebDataset tar shards, reached by number."""

import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from mmengine.dataset import Compose
from mmengine.dist import get_dist_info
from mmengine.logging import print_log
from torch.utils.data import Dataset

from evamm.checkpoints.download import cache_folder
from evamm.engine.errors import ConfigError
from evamm.registry import DATASETS

from ..samplers.damaged_images import damage_in
from ..samplers.pass_order import ShardOrder
from .shard_cache import ShardCache
from .shard_list import Shard, expand, is_remote
from .tar_index import Layout, TarIndex, key_of, load_index

_IMAGES = ('jpg', 'jpeg', 'png', 'webp')


class MissingPartError(ValueError):
    """A sample of a shard has no image or no text.

    Args:
        name: Shard and key.
        reason: What is missing.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f'{self.name}: {self.reason}'


@DATASETS.register_module()
class ImageTextShards(Dataset):
    """Image-text pairs in tar files, as img2dataset and webdataset write them.

    Shards are not streamed: an index of each says where its samples lie, and a sample is read by
    its number. So order, resuming, damaged images and mixtures work as for every other data set,
    with any number of workers. A shard behind a URL is fetched whole to a local cache when its
    first sample is due. Use it with :class:`evamm.ShardSampler`, which stays with a few shards.

    A sample gives ``img_bytes``, ``img_path`` (``shard.tar::key``) and ``text`` to its pipeline.

    Args:
        shards: Paths, addresses, braces, globs, folders or lists;
            see :func:`evamm.datasets.image_text.shard_list.expand`.
        data_root: Folder or address that relative ones are below.
        text: Extension of the member that is the text (``txt``), or extension and key of a member
            in JSON (``json:caption``).
        image_extensions: Extensions of images.
        pipeline: Transforms.
        samples_per_shard: Number of samples in every shard, for shards behind URLs that come
            without a list of numbers. Where it is too high, samples are drawn more than once;
            where it is too low, the last ones never are.
        cache_dir: Where indices and fetched shards are kept; ``~/.cache/evamm/shards`` if None.
        max_cached_shards: Most fetched shards kept on a machine. Each process uses as many as the
            sampler's ``window`` at a time.
        metainfo: Information on the data set for others.
    """

    def __init__(
        self,
        shards: str | Sequence[str],
        data_root: str = '',
        text: str = 'txt',
        image_extensions: Sequence[str] = _IMAGES,
        pipeline: Sequence[dict | Callable] = (),
        samples_per_shard: int | None = None,
        cache_dir: str | None = None,
        max_cached_shards: int = 256,
        metainfo: dict | None = None,
    ) -> None:
        extension, _, self.json_key = text.partition(':')
        if extension == 'json' and not self.json_key:
            raise ConfigError(
                "ImageTextShards: `text='json'` must name the key of the text too, such as "
                "'json:caption'."
            )
        self.layout = Layout(tuple(image_extensions), extension)
        self.metainfo = dict(metainfo or {})
        folder = Path(cache_dir).expanduser() if cache_dir else cache_folder() / 'shards'
        self.index_folder = folder / 'index'
        self.cache = ShardCache(folder / 'fetched', max_cached_shards)
        self.pipeline = Compose(list(pipeline))
        shards = self._count(expand(shards, data_root), samples_per_shard)
        self.urls = [shard.url for shard in shards]
        self.sizes = np.array([shard.samples for shard in shards], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)])
        if not len(self):
            raise ConfigError(f'ImageTextShards: the {len(shards)} shard(s) hold no sample.')
        self._forget()

    def _count(self, shards: list[Shard], samples_per_shard: int | None) -> list[Shard]:
        """Fill in missing numbers of samples: the one given, or by reading local shards."""
        unknown = [number for number, shard in enumerate(shards) if shard.samples is None]
        if not unknown:
            return shards
        if samples_per_shard is not None:
            for number in unknown:
                shards[number] = shards[number]._replace(samples=samples_per_shard)
            return shards
        remote = [shards[number].url for number in unknown if is_remote(shards[number].url)]
        if remote:
            raise ConfigError(
                f'ImageTextShards: nobody knows how many samples {remote[0]} holds. Write a list '
                'with tools/dataset_converters/index_shards.py and name it in `shards`, or set '
                '`samples_per_shard`.'
            )
        # Processes begin at different shards and find each other's indices on disk.
        rank, world_size = get_dist_info()
        first = len(unknown) * rank // world_size
        for done, number in enumerate(unknown[first:] + unknown[:first]):
            url = shards[number].url
            try:
                index = load_index(url, self.layout, self.index_folder)
            except FileNotFoundError as error:
                raise ConfigError(
                    f'ImageTextShards: the shard {url} does not exist; '
                    'docs/en/data_preparation.md says how to prepare image-text data.'
                ) from error
            if index.damage:
                print_log(
                    f'{url} is damaged ({index.damage}): only its first {len(index.places)} '
                    'samples are used.',
                    logger='current',
                    level=logging.WARNING,
                )
            shards[number] = shards[number]._replace(samples=len(index.places))
            if done % 1000 == 999:
                print_log(f'Read {done + 1} of {len(unknown)} shards.', logger='current')
        return shards

    def _forget(self) -> None:
        """Nothing is open; caches of this process."""
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._owner = os.getpid()
        # The index of 10,000 samples takes 0.4 MB.
        self._index = lru_cache(maxsize=64)(self.read_index)

    def __getstate__(self) -> dict:
        state = dict(vars(self))
        for name in ('_files', '_owner', '_index'):
            del state[name]
        return state

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._forget()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def draw_order(self, seed: int, **options: Any) -> ShardOrder:
        """Order for :class:`evamm.ShardSampler`."""
        return ShardOrder(self.sizes, seed, **options)

    def read_index(self, shard: int) -> tuple[str, TarIndex]:
        """Local path of a shard, which is fetched if need be, and what is in it."""
        url = self.urls[shard]
        path = self.cache.get(url) if is_remote(url) else url
        return path, load_index(path, self.layout, self.index_folder)

    def _read(self, path: str, shard: int, start: int, stop: int) -> bytes:
        content = os.pread(self._open(path, shard).fileno(), stop - start, start)
        if len(content) < stop - start:
            raise OSError(f'{path} ends early: it was changed after its index was made')
        return content

    def _open(self, path: str, shard: int) -> BinaryIO:
        """A shard; the 64 used last stay open."""
        if os.getpid() != self._owner:  # a forked worker
            self._forget()
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        try:
            file = open(path, 'rb', buffering=0)
        except FileNotFoundError:
            if not is_remote(self.urls[shard]):
                raise
            file = open(self.cache.get(self.urls[shard]), 'rb', buffering=0)  # had been dropped
        self._files[path] = file
        if len(self._files) > 64:
            self._files.popitem(last=False)[1].close()
        return file

    def _place(self, index: int) -> tuple[int, int]:
        """Shard of a sample, and its number there."""
        if not 0 <= index < len(self):
            raise IndexError(f'sample {index} of a data set of {len(self)}')
        shard = int(np.searchsorted(self._starts, index, side='right')) - 1
        return shard, int(index - self._starts[shard])

    def get_data_info(self, index: int) -> dict:
        """What the pipeline gets.

        Raises:
            MissingPartError: The sample has no image or no text.
        """
        shard, number = self._place(index)
        path, (places, damage) = self._index(shard)
        if not len(places):
            raise MissingPartError(self.urls[shard], f'no sample in it ({damage or "empty"})')
        start, image, image_size, text, text_size = places[number % len(places)].tolist()
        # One read for all: the members of a sample follow each other.
        stop = max(start + 512, image + image_size, text + text_size)
        content = self._read(path, shard, start, stop)
        name = f'{self.urls[shard]}::{key_of(content)}'
        image, text = image - start, text - start
        if image_size <= 0:
            raise MissingPartError(name, f'no image ({", ".join(self.layout.images)})')
        caption = self._caption(content[text : text + text_size]) if text_size > 0 else ''
        if not caption:
            raise MissingPartError(name, f'no text ({self.layout.text})')
        return {
            'img_bytes': content[image : image + image_size],
            'img_path': name,
            'text': caption,
            'sample_idx': index,
        }

    def _caption(self, content: bytes) -> str:
        text = content.decode('utf-8', errors='replace')
        if self.json_key:
            try:
                text = json.loads(text).get(self.json_key)
            except (ValueError, AttributeError):
                text = None
        return text.strip() if isinstance(text, str) else ''

    def __getitem__(self, index: int) -> Any:
        return self.pipeline(self.get_data_info(index))

    def find_damage(self, index: int) -> tuple[str, str] | None:
        """Name of a sample and what is wrong with it; None if it is sound."""
        try:
            info = self.get_data_info(index)
        except MissingPartError as error:
            return error.name, error.reason
        reason = damage_in(info['img_bytes'])
        return None if reason is None else (info['img_path'], reason)

    def substitute(self, index: int, seed: int) -> int:
        """Another sample of the same shard."""
        shard, number = self._place(index)
        size = int(self.sizes[shard])
        if size == 1:
            return seed % len(self)
        return int(self._starts[shard]) + (number + 1 + seed % (size - 1)) % size
