"""The weights of a TorchScript archive, read without running or even compiling its code.

OpenAI's CLIP files are such archives: ``data.pkl`` describes a tree of modules whose classes live
in ``code/``. The description is a pickle of two dozen instructions. They are followed here on plain
data: a class is a name, a module is a dict, and nothing can be called.
"""

import math
import pickletools
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError

_DTYPES = {
    f'torch {kind}Storage': dtype
    for kind, dtype in dict(
        Float=torch.float32,
        Half=torch.float16,
        BFloat16=torch.bfloat16,
        Double=torch.float64,
        Long=torch.int64,
        Int=torch.int32,
        Short=torch.int16,
        Char=torch.int8,
        Byte=torch.uint8,
        Bool=torch.bool,
    ).items()
}
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False, 'EMPTY_TUPLE': ()}
_LITERALS = ('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINUNICODE')
_MAX_DEPTH = 64
_MAX_MODULES = 100_000


@dataclass(eq=False)
class _Name:
    """What a pickle asks for by name; it stays a name."""

    name: str


@dataclass(eq=False)
class _Call:
    """A call that the pickle asks for and that nobody makes."""

    name: str
    args: tuple


@dataclass(eq=False)
class _Object:
    """A module: the name of its class, and its attributes."""

    name: str
    state: Any = None


@dataclass(eq=False)
class _Persistent:
    """A reference to a record of the archive."""

    args: Any


_MARK = object()


def _follow(pickled: bytes) -> Any:
    """What the instructions describe, in plain data and the four classes above."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        at = len(stack) - 1 - next(i for i, item in enumerate(reversed(stack)) if item is _MARK)
        items = stack[at + 1 :]
        del stack[at:]
        return items

    for opcode, arg, _ in pickletools.genops(pickled):
        kind = opcode.name
        if kind in _CONSTANTS:
            stack.append(_CONSTANTS[kind])
        elif kind in _LITERALS:
            stack.append(arg)
        elif kind == 'GLOBAL':
            stack.append(_Name(arg))
        elif kind in ('BINPUT', 'LONG_BINPUT'):
            memo[arg] = stack[-1]
        elif kind in ('BINGET', 'LONG_BINGET'):
            stack.append(memo[arg])
        elif kind == 'MARK':
            stack.append(_MARK)
        elif kind == 'EMPTY_DICT':
            stack.append({})
        elif kind == 'EMPTY_LIST':
            stack.append([])
        elif kind == 'TUPLE':
            stack.append(tuple(since_mark()))
        elif kind in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            count = int(kind[-1])
            items = tuple(stack[-count:])
            del stack[-count:]
            stack.append(items)
        elif kind in ('APPEND', 'APPENDS'):
            items = since_mark() if kind == 'APPENDS' else [stack.pop()]
            if type(stack[-1]) is not list:
                raise ValueError('it appends to what is no list')
            stack[-1].extend(items)
        elif kind in ('SETITEM', 'SETITEMS'):
            pairs = since_mark() if kind == 'SETITEMS' else [stack.pop(-2), stack.pop()]
            if type(stack[-1]) is not dict:
                raise ValueError('it fills what is no dict')
            # Other keys occur in attributes that hold no module.
            named = {k: v for k, v in zip(pairs[::2], pairs[1::2]) if type(k) is str}
            stack[-1].update(named)
        elif kind == 'NEWOBJ':
            stack.pop()
            stack.append(_Object(stack.pop().name))
        elif kind == 'REDUCE':
            args, target = stack.pop(), stack.pop()
            stack.append(_Call(target.name, args))
        elif kind == 'BUILD':
            state = stack.pop()
            if type(stack[-1]) is _Object:
                stack[-1].state = state
        elif kind == 'BINPERSID':
            stack.append(_Persistent(stack.pop()))
        elif kind == 'STOP':
            return stack.pop()
        elif kind != 'PROTO':
            raise ValueError(f'the instruction {kind}')
    raise ValueError('no end')


def _tensors_of(root: Any) -> Iterator[tuple[str, _Call]]:
    """(name, description) of every tensor in a tree of modules."""
    waiting, seen = [('', root, 0)], 0
    while waiting:
        prefix, module, depth = waiting.pop()
        seen += 1
        if seen > _MAX_MODULES:
            raise ValueError('more modules than any network has')
        if depth > _MAX_DEPTH:
            raise ValueError('modules within modules without end')
        if type(module.state) is not dict:
            continue
        for name, value in module.state.items():
            if type(value) is _Object:
                waiting.append((f'{prefix}{name}.', value, depth + 1))
            elif type(value) is _Call and value.name == 'torch._utils _rebuild_tensor_v2':
                yield prefix + name, value


def is_torch_script(names: list[str]) -> bool:
    """Whether the records of a zip file are those of a TorchScript archive."""
    return any(re.fullmatch(r'[^/]+/constants\.pkl', name) for name in names)


def is_script_code(name: str) -> bool:
    """Whether a record holds code, which is compressed and never read."""
    return re.match(r'[^/]+/code/', name) is not None


def load_torch_script(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of the module in a TorchScript archive, by name.

    Args:
        path: Zip file for which :func:`is_torch_script` is true. The checksum of every record that
            is read is verified.

    Raises:
        CheckpointError: Damaged or not what TorchScript writes; without the file name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            folder = next(n for n in names if re.fullmatch(r'[^/]+/data\.pkl', n)).split('/')[0]
            order = f'{folder}/byteorder'
            if order in names and archive.read(order).decode() != sys.byteorder:
                raise ValueError('a byte order that is not the one of this machine')
            root = _follow(archive.read(f'{folder}/data.pkl'))
            if type(root) is not _Object:
                raise ValueError('no module')
            storages: dict[str, Tensor] = {}
            tensors: dict[str, Tensor] = {}
            for name, call in _tensors_of(root):
                tensors[name] = _build(call.args, archive, folder, storages)
    except CheckpointError:
        raise
    except Exception as error:  # zipfile and pickletools raise many kinds on damaged input
        raise CheckpointError(
            f'it is a damaged TorchScript archive or holds more than weights ({error}); load it '
            'with torch.jit.load where you trust it, and save the weights alone: '
            'torch.save(model.state_dict(), path)'
        ) from error
    return tensors


def _build(
    args: tuple, archive: zipfile.ZipFile, folder: str, storages: dict[str, Tensor]
) -> Tensor:
    """A tensor from its checked description."""
    storage, offset, size, stride = args[:4]
    kind, dtype_name, key, _, length = storage.args
    sizes = (offset, length, *size, *stride)
    if kind != 'storage' or type(key) is not str or type(dtype_name) is not _Name:
        raise ValueError('a tensor without data')
    if not all(type(number) is int and 0 <= number < 1 << 48 for number in sizes):
        raise ValueError('a tensor of impossible size')
    dtype = _DTYPES[dtype_name.name]
    if key not in storages:
        record = bytearray(archive.read(f'{folder}/data/{key}'))
        storages[key] = (
            torch.frombuffer(record, dtype=torch.uint8)
            if record
            else torch.empty(0, dtype=torch.uint8)
        )
    if storages[key].numel() != length * dtype.itemsize:
        raise ValueError(f'data/{key} of another size than its description')
    flat = storages[key].view(dtype)
    last = offset + sum((count - 1) * step for count, step in zip(size, stride))
    count = math.prod(size)
    if len(size) != len(stride) or count > length or (count and last >= length):
        raise ValueError(f'a tensor that reaches beyond data/{key}')
    return flat.as_strided(size, stride, offset) if count else flat.new_empty(size)
