"""Annotation files in COCO's format, read as a whole and checked."""

import gc
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine import fileio

from ..checks import DataError
from .bad_data import BadData
from .problems import box_problem, image_problem, mask_problem, value_of

# What stands for the label of a category that is none of the classes, or is not in the file.
NO_CLASS = -2
UNLISTED = -1
_LISTS = ('images', 'annotations', 'categories')


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """While millions of small objects are made, looking for garbage takes a third of the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_coco_json(
    path: str, backend_args: dict | None = None, owner: str = 'the data set'
) -> dict[str, Any]:
    """The lists of an annotation file.

    Args:
        path: The file, wherever mmengine can read.
        backend_args: Arguments of the file backend.
        owner: Whose `ann_file` it is, for messages.

    Raises:
        DataError: It does not exist, or is not in COCO's format.
    """
    try:
        content = fileio.get(path, backend_args=backend_args)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(
            f'the annotation file {path} does not exist (looked for {os.path.abspath(path)}); '
            f'correct `ann_file` of {owner}.'
        ) from error
    try:
        data = json.loads(content)
    except ValueError as error:
        raise DataError(f'{path} is not JSON ({error}); write it again.') from error
    if isinstance(data, list):
        raise DataError(
            f'{path} is a list; an annotation file in COCO\'s format has "images", "annotations" '
            'and "categories" (a list is a file of predictions).'
        )
    if not isinstance(data, dict):
        raise DataError(
            f"{path} is not in COCO's format: it holds {str(data)[:40]!r} instead of "
            '{"images": [...], "annotations": [...], "categories": [...]}.'
        )
    missing = [name for name in _LISTS if not isinstance(data.get(name), list)]
    if 'annotations' in missing and 'annotations' not in data and len(missing) == 1:
        data['annotations'] = []  # the files of test sets have none
    elif missing:
        raise DataError(
            f"{path} is not in COCO's format: it has no list {' and no list '.join(missing)}."
        )
    return data


def categories_of(
    path: str, data: Mapping, classes: Sequence[str] | None, *, by_id: bool = False
) -> tuple[list[int], list[Mapping]]:
    """Which category of a file every class is.

    Args:
        path: Name of the file, for messages.
        data: The file.
        classes: Names of the classes, in the order of the labels.
        by_id: The classes are all categories in the order of their ids, whatever their names.

    Returns:
        Ids of the categories, and their entries, in the order of the classes.

    Raises:
        DataError: There is no such category, or not exactly one.
    """
    entries = [
        entry
        for entry in data['categories']
        if value_of(entry, 'id') is not None and value_of(entry, 'name') is not None
    ]
    if len({entry['id'] for entry in entries}) != len(data['categories']):
        raise DataError(f'{path}: every category needs a "name" and an "id" of its own.')
    if by_id:
        entries.sort(key=lambda entry: entry['id'])
        if len(entries) != len(classes):
            raise DataError(
                f'{path} has {len(entries)} categories, but the data set has {len(classes)} '
                'classes; it is the annotation file of another data set.'
            )
        return [entry['id'] for entry in entries], entries
    if isinstance(classes, str):
        raise DataError(
            f'metainfo.classes of the data set of {path} is the text {classes!r}; write a tuple of '
            f'names: classes=({classes!r},).'
        )
    twice = next((name for name in classes if list(classes).count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f'metainfo.classes of the data set of {path} has {twice!r} more than once; write every '
            'class once.'
        )
    named: dict[str, list[Mapping]] = {}
    for entry in entries:
        named.setdefault(str(entry['name']), []).append(entry)
    wrong = [name for name in classes if len(named.get(name, ())) != 1]
    if wrong:
        names = list(named)
        shown = ', '.join(map(repr, names[:20])) + (', ...' if len(names) > 20 else '')
        number = len(named.get(wrong[0], ()))
        raise DataError(
            f'{path}: {len(wrong)} of {len(classes)} classes are not in it exactly once, such as '
            f'{wrong[0]!r} ({number} times); its categories are {shown}. Set '
            'metainfo=dict(classes=(...)) of the data set to the names that are meant.'
        )
    chosen = [named[name][0] for name in classes]
    return [entry['id'] for entry in chosen], chosen


@dataclass(frozen=True)
class Image:
    """An entry of an annotation file that can be used.

    Args:
        entry: The entry.
        path: Where the file is.
        rows: Numbers of its annotations in the file.
    """

    entry: Mapping
    path: str
    rows: np.ndarray


class Annotations:
    """Images and annotations of a file, without those that cannot be used.

    Args:
        data: The file.
        labels: Label of every category of the file by its id, `NO_CLASS` for those without one.
        image_path: Path of an image, from its entry; None leaves it out without a word.
        bad: Takes note of what is wrong.
        with_mask: Every annotation needs a segmentation.
        check_files: Look whether the images exist.
        for_evaluation: Also what only a training has no use for and pycocotools evaluates: those
            whose own flag says `ignore`, boxes without area or outside of their image.
    """

    def __init__(
        self,
        data: Mapping,
        labels: Mapping[int, int],
        image_path: Callable[[Mapping], str | None],
        bad: BadData,
        *,
        with_mask: bool,
        check_files: bool,
        for_evaluation: bool = False,
    ) -> None:
        self.data = data
        self._labels = labels
        self._bad = bad
        self._with_mask = with_mask
        self._for_evaluation = for_evaluation
        self._entries = self._usable_images(image_path, check_files)
        self._rows = data['annotations']

    def _usable_images(
        self, image_path: Callable[[Mapping], str | None], check_files: bool
    ) -> dict[Any, tuple[Mapping, str]]:
        found: dict[Any, tuple[Mapping, str]] = {}
        self._listed = set()
        exists = _Folders() if check_files else lambda path: True
        for number, entry in enumerate(self.data['images']):
            problem = image_problem(entry)
            if problem is None and entry['id'] in self._listed:
                problem = 'images whose id is taken'
            if problem is None:
                self._listed.add(entry['id'])
                try:
                    path = image_path(entry)
                except (KeyError, TypeError, AttributeError):  # it has the other kind of name
                    self._bad.add('images', 'images without a file name', str(entry)[:80])
                    continue
                if path is not None and exists(path):
                    found[entry['id']] = (_with_whole_size(entry), path)
                elif path is not None:
                    self._bad.add('images', 'missing files', path)
            else:
                self._bad.add('images', problem, f'number {number}: {str(entry)[:80]}')
        return found

    def images(self) -> Iterator[Image]:
        """Images in the order of the file."""
        rows = self._rows
        if not rows:
            for entry, path in self._entries.values():
                yield Image(entry, path, np.zeros(0, np.int64))
            return
        places = {image_id: place for place, image_id in enumerate(self._entries)}
        ids = _column(rows, 'image_id')
        owners = np.fromiter((places.get(image_id, -1) for image_id in ids), np.int64, len(rows))
        for number in np.flatnonzero(owners < 0):
            if ids[number] not in self._listed:
                self.reject('annotations of an image that is not listed', rows[number])
        order = np.argsort(owners, kind='stable')
        bounds = np.searchsorted(owners[order], np.arange(len(places) + 1))
        for place, (entry, path) in enumerate(self._entries.values()):
            yield Image(entry, path, order[bounds[place] : bounds[place + 1]])

    def usable(self, image: Image) -> Iterator[tuple[dict, int]]:
        """Usable annotations of an image as they are in the file, with their labels."""
        height, width = image.entry['height'], image.entry['width']
        for number in image.rows:
            row = self._rows[number]
            label = self._labels.get(value_of(row, 'category_id'), UNLISTED)
            if label == NO_CLASS or (row.get('ignore', 0) and not self._for_evaluation):
                continue
            problem = None
            if label == UNLISTED:
                problem = 'annotations of a category that is not listed'
            problem = problem or box_problem(
                row.get('bbox'), height, width, for_evaluation=self._for_evaluation
            )
            if problem is None and (row.get('iscrowd') or 0) not in (0, 1):
                problem = 'annotations whose iscrowd is neither 0 nor 1'
            if problem is None and self._with_mask:
                problem = mask_problem(row.get('segmentation'), height, width)
            if problem is None:
                yield row, label
            else:
                self.reject(problem, row, image)

    def instances(self, image: Image) -> list[dict]:
        """Usable annotations of an image in mmdet's format.

        Returns:
            `bbox` as x1, y1, x2, y2 in pixels, `bbox_label`, `ignore_flag` (1 for a crowd) and,
            with masks, `mask`.
        """
        instances = []
        for row, label in self.usable(image):
            left, top, box_width, box_height = row['bbox']
            instance = {
                'bbox': [left, top, left + box_width, top + box_height],
                'bbox_label': label,
                'ignore_flag': int(row.get('iscrowd') or 0),
            }
            if self._with_mask:
                instance['mask'] = row['segmentation']
            instances.append(instance)
        return instances

    def count_repeated_ids(self) -> None:
        """Note annotations that share their id; they stay, as in pycocotools' `imgToAnns`.

        Nothing here goes by ids, the evaluation neither. pycocotools' own evaluation does: it
        takes the last of them in place of each.
        """
        ids = _column(self._rows, 'id')
        unique = set(ids)
        if None not in unique and len(unique) == len(ids):
            return
        seen = set()
        for row, number in zip(self._rows, ids):
            if number is None or number in seen:
                self._bad.add('kept', 'annotations without an id of their own', _place(row))
            seen.add(number)

    def reject(self, problem: str, row: Any, image: Image | None = None) -> None:
        """Note that an annotation cannot be used."""

        def where() -> str:
            text = _place(row)
            return text if image is None else f'{text}, {os.path.basename(image.path)}'

        self._bad.add('annotations', problem, where)


def _place(row: Any) -> str:
    """Which annotation it is, in words."""
    return f'annotation {value_of(row, "id")} of image {value_of(row, "image_id")}'


def _column(rows: Sequence[Any], key: str) -> list:
    """Values of a key in all entries."""
    try:
        column = [row[key] for row in rows]
        hash(tuple(column))
        return column
    except (KeyError, TypeError):  # not all entries are as they should be
        return [value_of(row, key) for row in rows]


def _with_whole_size(entry: Mapping) -> Mapping:
    """The entry with an int as height and width, which masks and images are compared with."""
    if isinstance(entry['height'], int) and isinstance(entry['width'], int):
        return entry
    return {**entry, 'height': int(entry['height']), 'width': int(entry['width'])}


class _Folders:
    """Whether files exist, by one listing of every folder."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def __call__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder or '.'))
            except OSError:
                self._names[folder] = set()
        return name in self._names[folder]
