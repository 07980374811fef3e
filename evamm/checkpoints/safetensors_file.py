"""Reading and writing .safetensors files, with our own limits and a hash of the content."""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from .errors import CheckpointError

# The largest released EVA has 1,500 tensors and a header of 200 kB.
MAX_HEADER_BYTES = 4 << 20
MAX_TENSORS = 20_000
HASH_ENTRY = 'evamm_sha256'

_BYTES = {
    'BOOL': 1,
    'U8': 1,
    'I8': 1,
    'F8_E4M3': 1,
    'F8_E5M2': 1,
    'U16': 2,
    'I16': 2,
    'F16': 2,
    'BF16': 2,
    'U32': 4,
    'I32': 4,
    'F32': 4,
    'U64': 8,
    'I64': 8,
    'F64': 8,
    'C64': 8,
}


def looks_like_safetensors(start: bytes) -> bool:
    """Whether a file that begins with these nine or more bytes can be a safetensors file."""
    return len(start) >= 9 and start[8:9] == b'{' and start[:4] != b'PK\x03\x04'


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise CheckpointError('its header names an entry twice')
    return out


def read_header(path: Path) -> dict[str, Any]:
    """Reads and checks the header without touching the data.

    Raises:
        CheckpointError: Without the file name, which the caller adds.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        length = struct.unpack('<Q', file.read(8))[0]
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(
                f'its header claims {length} bytes, at most {MAX_HEADER_BYTES} are accepted'
            )
        if 8 + length > size:
            raise CheckpointError(
                f'its header needs {8 + length} bytes and the file has {size}: it is truncated'
            )
        text = file.read(length)
    count = text.count(b'"data_offsets"')  # before parsing, which is slow
    if count > MAX_TENSORS:
        raise CheckpointError(f'it holds {count} tensors, at most {MAX_TENSORS} are accepted')
    try:
        header = json.loads(text.decode('utf-8'), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f'its header is damaged ({error})') from error
    if not isinstance(header, dict):
        raise CheckpointError('its header is no table of tensors')
    _check_layout(header, size - 8 - length)
    return header


def _check_layout(header: Mapping[str, Any], data_bytes: int) -> None:
    """Tensors must fill the data without gap or overlap and have the size of their shape."""
    metadata = header.get('__metadata__', {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError('its metadata is no table of texts')
    spans = []
    for name, entry in header.items():
        if name == '__metadata__':
            continue
        try:
            start, end = entry['data_offsets']
            shape = entry['shape']
            width = _BYTES[entry['dtype']]
            integers = all(type(n) is int and n >= 0 for n in (start, end, *shape))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f'the header entry of {name[:80]!r} is damaged') from error
        count = 1
        for side in shape if integers else ():
            count *= side
        if not integers or end - start != count * width:
            raise CheckpointError(f'the size of {name[:80]!r} does not fit its shape and dtype')
        spans.append((start, end, name))
    position = 0
    for start, end, name in sorted(spans):
        if start != position:
            raise CheckpointError(f'the data of {name[:80]!r} overlaps another or leaves a gap')
        position = end
    if position != data_bytes:
        raise CheckpointError(
            f'its tensors need {position} bytes and it holds {data_bytes}: it is truncated or '
            'padded'
        )


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the names, dtypes, shapes and bytes of tensors, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f'{name}\0{value.dtype}\0{tuple(value.shape)}\0'.encode())
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy())
    return digest.hexdigest()


def load_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads a file; data stays memory-mapped until it is used.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        CheckpointError: Damaged, hostile, or not what its own hash says.
    """
    header = read_header(path)
    try:
        with safetensors.safe_open(path, framework='pt') as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:
        raise CheckpointError(f'it cannot be read ({error})') from error
    metadata = header.get('__metadata__', {})
    expected = metadata.get(HASH_ENTRY)
    if expected is not None and content_hash(tensors) != expected:
        raise CheckpointError('its content does not fit the hash it carries: it is damaged')
    return tensors, metadata


def save_safetensors(
    tensors: Mapping[str, Tensor], path: str | os.PathLike, metadata: Mapping[str, str]
) -> None:
    """Writes tensors with their hash. Not atomic; see ``write_checkpoint``.

    Raises:
        CheckpointError: If an entry is no tensor.
    """
    plain: dict[str, Tensor] = {}
    seen: set[tuple[int, int]] = set()
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f'{name} is {type(value).__name__}; a .safetensors file holds tensors only, '
                'so write a .pth file'
            )
        value = value.detach().cpu().contiguous()
        memory = (value.untyped_storage().data_ptr(), value.storage_offset())
        # The format has no shared memory, and a view would drag its whole storage along.
        if memory in seen or value.untyped_storage().nbytes() != value.nbytes:
            value = value.clone()
        seen.add(memory)
        plain[name] = value
    info = {'format': 'pt', **metadata, HASH_ENTRY: content_hash(plain)}
    safetensors.torch.save_file(plain, os.fspath(path), metadata=info)
