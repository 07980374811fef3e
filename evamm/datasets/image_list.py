"""Images without labels, from a folder or a list of paths."""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from mmpretrain.datasets import BaseDataset

from evamm.registry import DATASETS

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')


class ImageListError(ValueError):
    """A folder or a list holds no images, or a line of a list is none."""


def _walk(folder: str) -> Iterator[str]:
    """Files below a folder, in the order of their names, as paths relative to it."""
    folders = ['']
    while folders:
        name = folders.pop()
        with os.scandir(os.path.join(folder, name)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        inner = []
        for entry in entries:
            path = os.path.join(name, entry.name) if name else entry.name
            if entry.is_dir():
                inner.append(path)
            else:
                yield path
        folders.extend(reversed(inner))


@DATASETS.register_module()
class ImageList(BaseDataset):
    """Every image of a folder, sub-folders included, or of a list; labels are left aside.

    Paths are kept in one block of memory, about 40 bytes each: a data set of 30 million images is
    a gigabyte that the processes of the data loader share.

    Args:
        ann_file: Text file with one path per line, below ``data_prefix``; a number after it (a
            label) is ignored. Without it the folder is searched, which takes minutes for millions
            of files: ``find . -type f > list.txt`` once is quicker.
        data_root: Folder that ``ann_file`` and ``data_prefix`` are in.
        data_prefix: Folder of the images in ``data_root``.
        pipeline: Transforms.
        extensions: Endings of image files, in small letters.
        indices: Use the first images only, or those with these numbers.
        test_mode: See mmengine's ``BaseDataset``.
        lazy_init: Read the list when it is needed.

    Raises:
        ImageListError: There are no images, or a line of the list is no image.
    """

    def __init__(
        self,
        ann_file: str = '',
        data_root: str = '',
        data_prefix: str = '',
        pipeline: Sequence[dict | Callable] = (),
        extensions: Sequence[str] = EXTENSIONS,
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        self.extensions = tuple(extensions)
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            pipeline=pipeline,
            indices=indices,
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    @property
    def folder(self) -> str:
        """Where the images are."""
        return self.data_prefix.get('img_path', '') or self.data_root

    def _paths(self) -> Iterator[str]:
        if not self.ann_file:
            yield from (
                path for path in _walk(self.folder) if path.lower().endswith(self.extensions)
            )
            return
        with open(self.ann_file, encoding='utf-8') as lines:
            for number, line in enumerate(lines, 1):
                path = line.strip()
                if not path:
                    continue
                if not path.lower().endswith(self.extensions):
                    path = path.rsplit(maxsplit=1)[0]  # a label behind it
                if not path.lower().endswith(self.extensions):
                    raise ImageListError(
                        f'{self.ann_file}, line {number}: expected the path of an image, found '
                        f'{line.strip()[:80]!r}. Image files end in {", ".join(self.extensions)}.'
                    )
                yield path.removeprefix('./')

    def full_init(self) -> None:
        """Reads the list."""
        if self._fully_initialized:
            return
        text, ends = bytearray(), array('q')
        for path in self._paths():
            text += os.fsencode(path)
            ends.append(len(text))
        if not ends:
            raise ImageListError(
                f'{self.ann_file or self.folder or Path.cwd()} holds no images: no file ends in '
                f'{", ".join(self.extensions)}.'
            )
        ends = np.array(ends)
        self._text = np.frombuffer(bytes(text), np.uint8)
        self._starts, self._ends = np.concatenate(([0], ends[:-1])), ends
        if self._indices is not None:
            chosen = self._indices
            chosen = np.arange(len(ends))[:chosen] if isinstance(chosen, int) else list(chosen)
            self._starts, self._ends = self._starts[chosen], self._ends[chosen]
        self._fully_initialized = True

    def __len__(self) -> int:
        self.full_init()
        return len(self._ends)

    def get_data_info(self, idx: int) -> dict:
        """``img_path`` and ``sample_idx`` of an image."""
        self.full_init()
        idx = range(len(self))[idx]
        path = os.fsdecode(self._text[self._starts[idx] : self._ends[idx]].tobytes())
        return {'img_path': os.path.join(self.folder, path), 'sample_idx': idx}

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} images in {self.folder or "."})'
