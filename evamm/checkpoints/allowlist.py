"""The globals that a torch file may name besides torch's own weights-only set.

None of them can do more than hold data. ``argparse.Namespace`` and mmengine's log buffer stand for
themselves; the others are answered by stand-ins of ours, never by what the file asks for:

- numpy's own ``dtype`` and ``ndarray`` trust what they unpickle (a dtype takes its flags from the
  file, and wrong flags turn numbers into pointers), so arrays are built from checked pieces.
- Training checkpoints of mmengine need ``getattr``. It is answered by a function that knows
  nothing but the statistics of a log buffer.
"""

import argparse
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .errors import CheckpointError

_SIMPLE_KINDS = 'biufcSU'


class _DType:
    """A numpy dtype by its code and byte order; nothing else is taken from the file."""

    def __init__(self, code: str = 'u1', *_: Any) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in _SIMPLE_KINDS:
            raise CheckpointError(f'it holds an array of {code!r}, only numbers and text are read')

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that is filled from checked pieces and pickles as a plain one."""

    def __new__(cls, *_: Any) -> '_Array':
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, data = state
        if type(dtype) is not _DType or type(data) is not bytes:
            raise CheckpointError('it holds an array that is not of numbers or text')
        super().__setstate__((version, shape, dtype.dtype, fortran, data))

    def __reduce__(self) -> tuple:
        return self.view(np.ndarray).__reduce__()


def _scalar(dtype: _DType, data: bytes) -> np.generic:
    if type(dtype) is not _DType or type(data) is not bytes:
        raise CheckpointError('it holds a numpy value that is no number or text')
    (value,) = np.frombuffer(data, dtype.dtype)
    return value


class _Inert:
    """Keeps what the file says about an object of a library, and does nothing with it."""

    def __init__(self, *args: Any) -> None:
        self.args = args


class HistoryBuffer(_Inert):
    """Stands for mmengine's log buffer where mmengine is not imported."""


def _history_buffer() -> type:
    module = sys.modules.get('mmengine.logging.history_buffer')
    return HistoryBuffer if module is None else module.HistoryBuffer


def _log_statistic(owner: type, name: str) -> Any:
    """What ``getattr`` is in a file: a named statistic of a log buffer, nothing else."""
    if owner is not _history_buffer() or name not in ('min', 'max', 'mean', 'current'):
        raise CheckpointError('it asks for getattr, and code in a checkpoint is never run')
    return getattr(owner, name, _Inert)


# Training state beside the weights of official files: DeepSpeed's, and the settings of optimizers
# that detectron2's lazy configs leave as objects of OmegaConf, with the types of their values.
_INERT = (
    *(f'omegaconf.{name}' for name in ('listconfig.ListConfig', 'dictconfig.DictConfig')),
    *(f'omegaconf.base.{name}' for name in ('ContainerMetadata', 'Metadata')),
    *(f'omegaconf.nodes.{name}Node' for name in ('Any', 'Boolean', 'Float', 'Integer', 'String')),
    'typing.Any',
    'collections.defaultdict',
    *(f'builtins.{name}' for name in ('bool', 'dict', 'float', 'int', 'list', 'str', 'tuple')),
    'deepspeed.runtime.fp16.loss_scaler.LossScaler',
    'deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler',
    'deepspeed.runtime.zero.config.ZeroStageEnum',
    'deepspeed.utils.tensor_fragment.fragment_address',
)


def _globals() -> list[tuple[Callable, str]]:
    entries: list[tuple[Callable, str]] = [
        (_DType, 'numpy.dtype'),
        (_Array, 'numpy.ndarray'),
        (argparse.Namespace, 'argparse.Namespace'),
        (_history_buffer(), 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_log_statistic, 'builtins.getattr'),
        *((_Inert, name) for name in _INERT),
    ]
    for core in ('numpy.core', 'numpy._core'):
        entries.append((_Array, f'{core}.multiarray._reconstruct'))
        entries.append((_scalar, f'{core}.multiarray.scalar'))
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
