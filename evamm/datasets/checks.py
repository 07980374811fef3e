"""Does a data set fit the model, and are its files there? Asked of data sets that are built."""

import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from numbers import Integral
from typing import Any

from mmengine import fileio

# Images of an annotation file that are looked for on disk, evenly spaced.
_LOOKED_FOR = 256
_NO_INFO: Mapping = {}


class DataError(ValueError):
    """A data set cannot be used; the message is one sentence that names it and the remedy."""


def single_datasets(dataset: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The data sets inside wrappers such as ConcatDataset and KFoldDataset, with their keys."""
    if isinstance(parts := getattr(dataset, 'datasets', None), (list, tuple)):
        for index, part in enumerate(parts):
            yield from single_datasets(part, f'{key}.datasets.{index}')
    elif hasattr(inner := getattr(dataset, 'dataset', None), '__getitem__'):
        yield from single_datasets(inner, f'{key}.dataset')
    else:
        yield key, dataset


def class_names(dataset: Any) -> list[str] | None:
    """Names of the classes, None if the data set does not say."""
    names = (getattr(dataset, 'metainfo', None) or _NO_INFO).get('classes')
    return None if names is None or isinstance(names, str) else [str(name) for name in names]


def check_dataset(
    dataset: Any, key: str, num_classes: int | None, *, training: bool, head: str = 'model.head'
) -> None:
    """Make sure that classes and labels fit the model, and that images exist.

    Classes and labels are all looked at (they are in memory), files on disk are not: at most 256
    images of an annotation file, evenly spaced.

    Args:
        dataset: Map-style data set of any library, or a wrapper around some.
        key: Where it stands in the config.
        num_classes: Classes of the model's head, None if it has none.
        training: Every class must have images.
        head: Where the head stands in the config.

    Raises:
        DataError: Says what was expected, what was found and what to do.
    """
    for part_key, part in single_datasets(dataset, key):
        if not hasattr(part, '__len__'):
            continue
        if len(part) == 0:
            raise DataError(f'{part_key}: there is not a single sample in {_place(part)}.')
        _check_classes(part, part_key, num_classes, head)
        # Shards have neither labels nor files, detection data sets look at both themselves; a bad
        # sample in them is left to training.
        if hasattr(part, 'get_data_info') and not hasattr(part, 'find_damage'):
            _check_labels(part, part_key, num_classes, training)
            _check_files(part, part_key)


def _place(dataset: Any) -> str:
    """File or folder that the samples come from."""
    ann_file = getattr(dataset, 'ann_file', '')
    return str(ann_file or getattr(dataset, 'img_prefix', '') or getattr(dataset, 'data_root', ''))


def _shown(names: Sequence[str]) -> str:
    return ', '.join(names[:4]) + (', ...' if len(names) > 4 else '')


def _check_classes(dataset: Any, key: str, num_classes: int | None, head: str) -> None:
    names = class_names(dataset)
    if names is None:
        return
    if num_classes is not None and len(names) != num_classes:
        also = ' (and data_preprocessor.num_classes)' if head == 'model.head' else ''
        raise DataError(
            f'{key} has {len(names)} classes ({_shown(names)}), but {head}.num_classes is '
            f'{num_classes}: set {head}.num_classes={len(names)}{also}, or correct '
            'metainfo.classes of the data set.'
        )
    folders = getattr(dataset, 'folder_to_idx', None)
    if folders and sorted(folders) == sorted(names) and sorted(folders) != names:
        raise DataError(
            f'{key}.metainfo.classes: {_shown(names)} is not the order of the sorted folders of '
            f'{_place(dataset)}, by which images are labelled; write them as '
            f'{_shown(sorted(names))}.'
        )


def _infos(dataset: Any) -> Iterator[Mapping]:
    """What is known about every sample; `get_data_info` takes three times as long."""
    if getattr(dataset, 'serialize_data', False) and hasattr(dataset, 'data_bytes'):
        content = memoryview(dataset.data_bytes)  # pickled by this process
        for start, end in pairwise([0, *dataset.data_address.tolist()]):
            yield pickle.loads(content[start:end])
    else:
        for index in range(len(dataset)):
            yield dataset.get_data_info(index)


def _check_labels(dataset: Any, key: str, num_classes: int | None, training: bool) -> None:
    names = class_names(dataset)
    limit = num_classes or (None if names is None else len(names))
    seen = set()
    for info in _infos(dataset):
        if not isinstance(info, Mapping) or 'gt_label' not in info:
            return  # data of another task
        label = info['gt_label']
        for number in label if isinstance(label, (list, tuple)) else (label,):
            if not isinstance(number, Integral) or number in seen:
                continue
            if limit is not None and not 0 <= number < limit:
                raise DataError(
                    f'{key}: {_place(dataset)} gives {info.get("img_path", "an image")} the label '
                    f'{number}, but the labels of {limit} classes '
                    f'({"model.head.num_classes" if num_classes else "metainfo.classes"}) are 0 to '
                    f'{limit - 1}; correct the labels or the number of classes.'
                )
            seen.add(number)
    folders = getattr(dataset, 'folder_to_idx', None)
    if training and folders:
        missing = [name for name, label in folders.items() if label not in seen]
        # A part of a data set (indices, a fold) may lack a class.
        empty = [name for name in missing if not _has_images(dataset, name)]
        if empty:
            raise DataError(
                f'{key}: the class folders {_shown(empty)} of {dataset.img_prefix} hold no image '
                f'({", ".join(sorted(dataset.extensions))}); put images into them, or remove them '
                'and their classes.'
            )


def _has_images(dataset: Any, folder: str) -> bool:
    path = fileio.join_path(dataset.img_prefix, folder)
    files = fileio.list_dir_or_file(path, list_dir=False, recursive=True)
    return any(dataset.is_valid_file(file) for file in files)


def _check_files(dataset: Any, key: str) -> None:
    if not getattr(dataset, 'ann_file', '') or _reads_elsewhere(dataset):
        return  # listed from the folders themselves, or not files
    count = min(len(dataset), _LOOKED_FOR)
    positions = [round(i * (len(dataset) - 1) / max(count - 1, 1)) for i in range(count)]
    infos = [dataset.get_data_info(position) for position in positions]
    paths = [info['img_path'] for info in infos if isinstance(info.get('img_path'), str)]
    missing = [path for path in paths if '://' not in path and not os.path.isfile(path)]
    if missing:
        raise DataError(
            f'{key}: {dataset.ann_file} lists images that do not exist, such as {missing[0]} '
            f'({len(missing)} of {len(paths)} that were looked for); correct the file, or '
            f'data_root and data_prefix of the data set.'
        )


def _reads_elsewhere(dataset: Any) -> bool:
    """Whether images come from a database or a store."""
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or [None]
    backend = (getattr(steps[0], 'backend_args', None) or _NO_INFO).get('backend', 'local')
    root = str(getattr(dataset, 'img_prefix', '') or getattr(dataset, 'data_root', '') or '')
    return backend not in ('local', 'disk') or root.startswith(('s3:', 'petrel:')) or '://' in root


def explain_loading(dataset: Any, problem: str) -> str:
    """One sentence about a data set whose samples could not be listed.

    Args:
        dataset: The data set, partly built.
        problem: What its code said.
    """
    name, ann_file = type(dataset).__name__, str(getattr(dataset, 'ann_file', '') or '')
    if ann_file and hasattr(dataset, 'with_label') and os.path.isfile(ann_file):
        reason = _bad_line(ann_file)
        if reason is not None:
            return f'{name}: {ann_file}{reason}; write "IMAGE LABEL", such as "a/1.jpg 3".'
    if not ann_file and (names := class_names(dataset)) and os.path.isdir(_place(dataset)):
        folders = sorted(entry.name for entry in os.scandir(_place(dataset)) if entry.is_dir())
        if len(folders) != len(names):
            return f'{name}: {_place(dataset)} has {_folder_difference(folders, names)}'
    return f'{name} cannot list its samples from {_place(dataset)}: {problem}'


def _bad_line(ann_file: str) -> str | None:
    """Where a file of lines "IMAGE LABEL" is none, and how; None if it is."""
    if os.path.getsize(ann_file) == 0:
        return ' is empty'
    with open(ann_file, 'rb') as file:
        for number, raw in enumerate(file, 1):
            try:
                line = raw.decode().strip()
            except UnicodeDecodeError:
                return ' is no text file'
            if number == 1 and line[:1] in ('{', '['):
                return ' is JSON, not a list of images with their labels'
            parts = line.rsplit(' ', 1)
            if len(parts) < 2 or not parts[1].lstrip('-').isdecimal():
                shown = repr(line[:80]) if line else 'an empty line'
                return (
                    f', line {number}: expected an image and the number of its class, found {shown}'
                )
    return None


def _folder_difference(folders: list[str], names: list[str]) -> str:
    missing = [name for name in names if name not in folders]
    extra = [folder for folder in folders if folder not in names]
    text = f'{len(folders)} class folders, but metainfo.classes has {len(names)} names'
    if set(folders) & set(names):
        text += f' (missing: {_shown(missing)})' if missing else ''
        text += f' (not among the names: {_shown(extra)})' if extra else ''
    return f'{text}; add or remove folders, or correct metainfo.classes and model.head.num_classes.'
