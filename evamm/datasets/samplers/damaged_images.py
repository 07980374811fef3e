"""Training images that cannot be decoded: which they are, how many, and when to stop."""

import io
import logging
import multiprocessing
import queue
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.fileio import get
from mmengine.logging import print_log
from PIL import Image
from torch.utils.data import Dataset, get_worker_info


class DamagedDataError(RuntimeError):
    """More images are damaged than a run may silently replace."""


class Damage(NamedTuple):
    """An image that could not be decoded."""

    index: int
    path: str
    reason: str


def path_of(dataset: Dataset, index: Any) -> str | None:
    """File of a sample, for datasets of the OpenMMLab libraries; else None."""
    if not hasattr(dataset, 'get_data_info') or not isinstance(index, int):
        return None
    info = dataset.get_data_info(index)
    path = info.get('img_path') if isinstance(info, dict) else None
    return path if isinstance(path, str) else None


def damage_of(path: str) -> str | None:
    """Why an image cannot be decoded; None if it can, or cannot be read at all."""
    try:
        content = get(path)
    except Exception:  # missing or unreachable: not a matter of this one image
        return None
    if not content:
        return 'the file is empty'
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, ...
        return str(error).replace(path, '') or type(error).__name__
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return str(error)
    return 'OpenCV cannot decode it' if decoded is None else None


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
        limit: Largest share of it that may be damaged; one image always may.
    """

    def __init__(self, samples: int, limit: float) -> None:
        self.samples = samples
        self.limit = limit
        self.replaced = 0
        self.paths: dict[int, str] = {}

    def add(self, reports: list[Damage]) -> None:
        """Count reports.

        Raises:
            DamagedDataError: Too many images are damaged.
        """
        for index, path, reason in reports:
            self.replaced += 1
            if index not in self.paths:
                self.paths[index] = path
                print_log(
                    f'{path} cannot be decoded ({reason}); another image takes its place.',
                    logger='current',
                    level=logging.WARNING,
                )
        if len(self.paths) > max(1, self.limit * self.samples):
            raise DamagedDataError(
                f'{len(self.paths)} of {self.samples} training images cannot be decoded, more '
                f'than train_cfg.max_damaged={self.limit:g} allows; the last one is '
                f'{list(self.paths.values())[-1]}. Repair the data (the log names every file), '
                'or allow more.'
            )

    def summary(self) -> str:
        """One line for the end of the log; empty if there was no damage."""
        if not self.paths:
            return ''
        return (
            f'{len(self.paths)} of {self.samples} training images cannot be decoded; they were '
            f'replaced {self.replaced} times.'
        )
