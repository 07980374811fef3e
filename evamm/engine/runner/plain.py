"""Values of a running training as tensors and plain Python, so that files hold no code."""

import logging
from collections.abc import Mapping
from pathlib import PurePath

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log

_ATOMS = (str, bytes, bool, int, float, complex, type(None))
_HISTORY = '__history_buffer__'


class _NotPlain(TypeError):
    pass


def _convert(value: object, copy: bool = False) -> object:
    if isinstance(value, HistoryBuffer):
        log, count = (torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in value.data)
        return {_HISTORY: value.max_length, 'log': log, 'count': count}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        return torch.from_numpy(value.copy())
    if isinstance(value, torch.Tensor):
        return value.detach().to('cpu', copy=copy)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {_convert(key): _convert(item, copy) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_convert(item, copy) for item in value)
    if isinstance(value, list):
        return [_convert(item, copy) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_convert(item, copy) for item in value)
    if type(value) in _ATOMS:
        return value
    raise _NotPlain(type(value).__name__)


def to_plain(values: Mapping, *, what: str, strict: bool = False, copy: bool = False) -> dict:
    """A copy of ``values`` on the CPU in which every leaf is a tensor or a plain value.

    Args:
        values: What to convert.
        what: Name of ``values`` in messages.
        strict: Fail at a value of another type, instead of leaving it out with a warning.
        copy: Share no memory with ``values``.

    Raises:
        TypeError: A value of another type, if ``strict``.
    """
    plain = {}
    for key, value in values.items():
        try:
            plain[key] = _convert(value, copy)
        except _NotPlain as error:
            message = (
                f'{what}[{key!r}] holds a {error}; checkpoints hold only tensors and plain '
                'Python values'
            )
            if strict:
                raise TypeError(f'{message}.') from None
            print_log(f'{message}, so it is not saved.', 'current', logging.WARNING)
    return plain


def history_to_plain(state: Mapping) -> dict:
    """Message-hub state without ``HistoryBuffer`` objects."""
    return {key: to_plain(part, what=f'message_hub.{key}') for key, part in state.items()}


def history_from_plain(state: Mapping) -> dict:
    """Inverse of :func:`history_to_plain`; a state of mmengine's own runner passes unchanged."""
    scalars = {}
    for key, value in state['log_scalars'].items():
        if isinstance(value, Mapping) and _HISTORY in value:
            value = HistoryBuffer(
                value['log'].cpu().numpy(), value['count'].cpu().numpy(), value[_HISTORY]
            )
        scalars[key] = value
    return {**state, 'log_scalars': scalars}
