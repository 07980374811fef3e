"""The globals that a torch file may name besides torch's own weights-only set.

Every entry builds plain data. ``getattr`` is the one name that training checkpoints of mmengine
need and that would open a way to run code: it is answered by a function that knows nothing but
the statistics of a log buffer.
"""

import argparse
import collections
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

try:  # numpy 2
    from numpy._core import multiarray
except ImportError:  # numpy 1
    from numpy.core import multiarray

_HISTORY_BUFFER = 'mmengine.logging.history_buffer.HistoryBuffer'


class HistoryBuffer:
    """Stands for mmengine's log buffer where mmengine is not imported: it only keeps the data."""


class _Statistic:
    """Stands for a method of the log buffer."""


def _log_statistic(owner: type, name: str) -> Any:
    """What ``getattr`` is in our files: a named statistic of a log buffer, nothing else."""
    if owner is not _history_buffer() or name not in ('min', 'max', 'mean', 'current'):
        raise ValueError('a checkpoint may take attributes of a log buffer only')
    return getattr(owner, name, _Statistic)


def _history_buffer() -> type:
    module = sys.modules.get('mmengine.logging.history_buffer')
    return HistoryBuffer if module is None else module.HistoryBuffer


def _defaultdict(*args: Any) -> collections.defaultdict:
    """A defaultdict of plain data, whatever factory the file asks for."""
    return collections.defaultdict(None, *args[1:])


class _PurePath(pathlib.PurePosixPath):
    """A path of the machine that wrote the file, as text only."""


def _globals() -> list[tuple[Callable, str]]:
    dtypes = {type(np.dtype(code)) for code in '?bBhHiIlLqQefdFDSU'}
    scalars = {
        np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32,
        np.uint64, np.float16, np.float32, np.float64,
    }
    entries: list[tuple[Callable, str]] = [
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
        *((item, f'numpy.dtypes.{item.__name__}') for item in dtypes),
        *((item, f'numpy.{item.__name__}') for item in scalars),
        (argparse.Namespace, 'argparse.Namespace'),
        (_defaultdict, 'collections.defaultdict'),
        (slice, 'builtins.slice'),
        (_PurePath, 'pathlib.PosixPath'),
        (_PurePath, 'pathlib.PurePosixPath'),
        (_PurePath, 'pathlib.WindowsPath'),
        (_PurePath, 'pathlib._local.PosixPath'),
        (_history_buffer(), _HISTORY_BUFFER),
        (_log_statistic, 'builtins.getattr'),
    ]
    for core in ('numpy.core', 'numpy._core'):
        entries.append((multiarray._reconstruct, f'{core}.multiarray._reconstruct'))
        entries.append((multiarray.scalar, f'{core}.multiarray.scalar'))
    return entries


_LOCK = threading.RLock()


@contextmanager
def only_these_globals() -> Iterator[None]:
    """While it lasts, ``torch.load(weights_only=True)`` allows torch's own set and ours.

    What other code has added to torch's process-wide list is put aside and restored.
    """
    with _LOCK:
        before = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(_globals())
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)
