"""Training images that cannot be used: which they are, how many, and when to stop."""

import io
import logging
import multiprocessing
import queue
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.fileio import get
from mmengine.logging import print_log
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset, get_worker_info

# Images that are named in the log.
_LOGGED = 1000
# Shares of fewer draws say little.
_FEW = 10_000


class DamagedDataError(RuntimeError):
    """More images are damaged than a run may silently replace."""


class Damage(NamedTuple):
    """An image that could not be used."""

    index: int
    path: str
    reason: str


def find_damage(dataset: Dataset, index: Any) -> tuple[str, str] | None:
    """Name of a sample and why its image cannot be decoded.

    Args:
        dataset: One with a method ``find_damage``, or of the OpenMMLab libraries.
        index: Number of the sample.

    Returns:
        None if the sample is sound, or nobody can tell.
    """
    if not isinstance(index, int):
        return None
    if hasattr(dataset, 'find_damage'):
        try:
            return dataset.find_damage(index)
        except Exception:  # missing or unreachable: not a matter of this one image
            return None
    if not hasattr(dataset, 'get_data_info'):
        return None
    info = dataset.get_data_info(index)
    path = info.get('img_path') if isinstance(info, dict) else None
    if not isinstance(path, str):
        return None
    try:
        content = get(path)
    except Exception:
        return None
    reason = damage_in(content)
    return None if reason is None else (path, reason.replace(path, ''))


def damage_in(content: bytes) -> str | None:
    """Why an image file cannot be decoded; None if it can."""
    if not content:
        return 'the file is empty'
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except UnidentifiedImageError:
        return 'no image of a known format'
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, ...
        return str(error) or type(error).__name__
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return str(error)
    return 'OpenCV cannot decode it' if decoded is None else None


def substitute(dataset: Dataset, index: int, seed: int) -> int:
    """Number of another sample: the choice of the data set, or any."""
    if hasattr(dataset, 'substitute'):
        return dataset.substitute(index, seed)
    return seed % len(dataset)


class DamageReports:
    """Carries reports from loader workers to the process that trains."""

    def __init__(self) -> None:
        # Its writer is a thread: no worker waits for the reader.
        self._queue = multiprocessing.Queue()
        self._own: list[Damage] = []

    def put(self, damage: Damage) -> None:
        """Report from a worker or from the process itself."""
        if get_worker_info() is None:
            self._own.append(damage)
            return
        self._queue.cancel_join_thread()
        self._queue.put(tuple(damage))

    def take(self) -> list[Damage]:
        """All reports that have arrived."""
        reports, self._own = self._own, []
        while not self._queue.empty():
            try:
                reports.append(Damage(*self._queue.get_nowait()))
            except queue.Empty:
                break
        return reports


class DamageCount:
    """Logs every damaged image once and ends the run when there are too many.

    Args:
        samples: Size of the dataset.
        limit: Largest share of it that may be damaged; one image always may. Where the dataset is
            so large that it will not be seen as a whole, the share of what was drawn counts.
    """

    def __init__(self, samples: int, limit: float) -> None:
        self.samples = samples
        self.limit = limit
        self.drawn = 0
        self.replaced = 0
        self.paths: dict[int, str] = {}

    def add(self, reports: list[Damage], drawn: int = 0) -> None:
        """Count reports.

        Args:
            reports: What :class:`DamageReports` carried.
            drawn: Samples drawn since the last call.

        Raises:
            DamagedDataError: Too many images are damaged.
        """
        self.drawn += drawn
        for index, path, reason in reports:
            self.replaced += 1
            if index not in self.paths:
                self.paths[index] = path
                if len(self.paths) <= _LOGGED:
                    print_log(
                        f'{path} cannot be used ({reason}); another image takes its place.',
                        logger='current',
                        level=logging.WARNING,
                    )
                if len(self.paths) == _LOGGED:
                    print_log(
                        f'{_LOGGED} images cannot be used; further ones are counted, not named.',
                        logger='current',
                        level=logging.WARNING,
                    )
        seen = min(self.samples, max(self.drawn, _FEW))
        if len(self.paths) > max(1, self.limit * seen):
            of_all = 'training images' if seen == self.samples else 'training images seen so far'
            raise DamagedDataError(
                f'{len(self.paths)} of {seen} {of_all} cannot be used, more '
                f'than train_cfg.max_damaged={self.limit:g} allows; the last one is '
                f'{list(self.paths.values())[-1]}. Repair the data (the log names the files), '
                'or allow more.'
            )

    def summary(self) -> str:
        """One line for the end of the log; empty if there was no damage."""
        if not self.paths:
            return ''
        return (
            f'{len(self.paths)} of {self.samples} training images cannot be used; they were '
            f'replaced {self.replaced} times.'
        )
