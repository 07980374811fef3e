"""What stands around a state dict: wrapper entries, EMA copies, prefixes of wrapping modules."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError, abbreviate

# In the order of preference. Official fine-tuning keeps its average in `model_ema`; the accuracy
# of the released models belongs to it. `ema_state` is detectron2's.
EMA_ENTRIES = ('model_ema', 'state_dict_ema', 'ema_state')
RAW_ENTRIES = ('model', 'module', 'state_dict')

# Put in front of or between names by DDP, torch.compile, FSDP and checkpoint wrappers.
_WRAPPER_SEGMENTS = re.compile(
    r'(?:^|(?<=\.))(?:_orig_mod|_checkpoint_wrapped_module|'
    r'_fsdp_wrapped_module)\.'
)


def strip_wrapper_segments(name: str) -> str:
    """A parameter's name without what compiling or sharding a module adds to it."""
    return _WRAPPER_SEGMENTS.sub('', name)


def strip_module_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without wrapper segments and without ``module.`` if every name has it."""
    out = {strip_wrapper_segments(name): value for name, value in state_dict.items()}
    while out and all(name.startswith('module.') for name in out):
        out = {name[len('module.') :]: value for name, value in out.items()}
    return out


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and any(isinstance(item, Tensor) for item in value.values())
        and all(isinstance(name, str) for name in value)
    )


def _pick(obj: Mapping, prefer_ema: bool) -> tuple[Any, str]:
    """One step inwards: the chosen entry and its name, or the object itself and ''."""
    if 'ema_state_dict' in obj and 'state_dict' in obj and not prefer_ema:
        # mmengine's EMAHook swaps: `state_dict` holds the average, `ema_state_dict` the raw one.
        raw = {name: value for name, value in obj['ema_state_dict'].items() if name != 'steps'}
        return raw, 'ema_state_dict'
    entries = EMA_ENTRIES + RAW_ENTRIES if prefer_ema else RAW_ENTRIES
    for entry in entries:
        if isinstance(obj.get(entry), Mapping) and obj[entry]:
            return obj[entry], entry
    return obj, ''


def unwrap(obj: Any, *, prefer_ema: bool = True) -> tuple[dict[str, Tensor], str]:
    """Finds the state dict in what a checkpoint file holds.

    Args:
        obj: Content of a file.
        prefer_ema: Take the averaged weights where the file has both kinds.

    Returns:
        The state dict without wrapper prefixes, and the path of entries that led to it, such as
        ``'model_ema'``; empty if the file is the state dict itself.

    Raises:
        CheckpointError: If there is none, or it holds anything but tensors.
    """
    path: list[str] = []
    while isinstance(obj, Mapping):
        obj, entry = _pick(obj, prefer_ema)
        if not entry:
            break
        path.append(entry)
    if not _is_state_dict(obj):
        found = (
            f'a dict with the entries {abbreviate(map(repr, obj))}'
            if isinstance(obj, Mapping)
            else f'{type(obj).__name__}'
        )
        raise CheckpointError(
            'expected tensors by name, directly or under one of '
            f'{", ".join(EMA_ENTRIES + RAW_ENTRIES)}, found {found}; is it a model checkpoint?'
        )
    others = [name for name, value in obj.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f'the state dict holds entries that are no tensors ({abbreviate(others)}); save only '
            'model.state_dict().'
        )
    for name, value in obj.items():
        kind = _odd_kind(value)
        if kind:
            raise CheckpointError(
                f'{name} is {kind}, expected a plain tensor; save the dense values.'
            )
    return strip_module_prefix(obj), '.'.join(path)


def _odd_kind(value: Tensor) -> str:
    """Why a tensor cannot be copied into a model, '' if it can."""
    if value.is_meta:
        return 'on the meta device and has no values'
    if value.is_quantized:
        return 'quantized'
    return '' if value.layout == torch.strided else 'sparse'
