"""Reading a checkpoint file: what it is, is it whole, and what it holds."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from .dialects import detect_dialect
from .download import fetch_weights, is_url
from .errors import CheckpointError, abbreviate
from .hashing import check_sha256
from .safetensors_file import load_safetensors, looks_like_safetensors
from .torch_file import load_torch_file
from .wrappers import unwrap


@dataclass
class Checkpoint:
    """What a file holds.

    Args:
        state_dict: Tensors by name as they are in the file, without wrapper prefixes.
        source: Entries that led to it, such as 'model_ema'; '' if it is the file itself.
        meta: The file's ``meta`` entry, or the metadata of a safetensors file.
        path: Where it was read from.
    """

    state_dict: dict[str, Tensor]
    source: str = ''
    meta: dict[str, Any] = field(default_factory=dict)
    path: str = ''

    @cached_property
    def dialect(self) -> str:
        """Code base that the names come from."""
        return detect_dialect(self.state_dict)


def read_object(path: str | os.PathLike, *, sha256: str | None = None, verify: bool = True) -> Any:
    """Reads all that a file holds (for resuming); never runs code from it.

    Args:
        path: .safetensors, torch zip or legacy torch file, or an http(s) address. The content
            decides, not the ending.
        sha256: Expected hash of the file.
        verify: Check the checksums of a torch zip file.

    Returns:
        The saved object; for safetensors a dict ``{'state_dict': ..., 'meta': ...}``.

    Raises:
        CheckpointError: Missing, damaged, hostile or no checkpoint.
    """
    return _read(path, sha256, verify)[0]


def _read(path: str | os.PathLike, sha256: str | None, verify: bool) -> tuple[Any, bool]:
    """The content of a file, and whether it is a safetensors file."""
    if not isinstance(path, (str, os.PathLike)):
        raise CheckpointError(f'checkpoint={path!r}: expected the path of a file; give one.')
    path = fetch_weights(path, sha256=sha256) if is_url(path) else Path(path).expanduser()
    if path.is_dir():
        raise CheckpointError(f'{path}: is a folder; {_what_to_give(path)}.')
    if not path.is_file():
        raise CheckpointError(f'{path}: does not exist; give the path of a checkpoint file.')
    try:
        with path.open('rb') as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be opened ({error.strerror}).') from error
    reason = _not_a_checkpoint(start)
    if reason:
        raise CheckpointError(
            f'{path}: expected a .safetensors or torch file, found {reason}; download it again.'
        )
    if sha256 is not None:
        check_sha256(path, sha256)
    try:
        if looks_like_safetensors(start):
            tensors, metadata = load_safetensors(path)
            return {'state_dict': tensors, 'meta': metadata}, True
        return load_torch_file(path, verify=verify), False
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}.') from error


def _what_to_give(folder: Path) -> str:
    """What to do instead of giving a folder."""
    names = sorted(entry.name for entry in folder.iterdir())
    if 'state.pth' in names and any(name.startswith('shard-') for name in names):
        return (
            'it is the checkpoint of a sharded run, each process wrote a part; resume that run '
            'once without sharded_checkpoints, then its next checkpoint is one file to load'
        )
    files = [name for name in names if name.endswith(('.pt', '.pth', '.bin', '.safetensors'))]
    if files:
        return f'give a file in it: {abbreviate(files, 4)}'
    return 'give the path of a checkpoint file'


def _not_a_checkpoint(start: bytes) -> str:
    """What a file is instead, in words; '' if it can be a checkpoint."""
    text = start.lstrip().lower()
    if not start:
        return 'an empty file'
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return 'a web page (the server answered with a page instead of the file)'
    if text.startswith(b'version https://git-lfs'):
        return 'a Git LFS pointer (run git lfs pull)'
    if start.startswith(b'\x1f\x8b'):
        return 'a gzip archive (unpack it first)'
    if start.startswith((b'BZh', b'\xfd7zXZ', b'7z\xbc\xaf')) or start[257:262] == b'ustar':
        return 'an archive (unpack it first)'
    if start.startswith((b'\x89HDF', b'\x93NUMPY')):
        return 'a file of another format'
    if start.startswith((b'PK\x03\x04', b'\x80')) or looks_like_safetensors(start):
        return ''
    printable = all(byte in b'\t\n\r\f' or 32 <= byte < 127 for byte in start)
    return 'a text file' if printable else 'other data'


def read_checkpoint(
    path: str | os.PathLike, *, prefer_ema: bool = True, sha256: str | None = None
) -> Checkpoint:
    """Reads the model weights of a file.

    Args:
        path: See :func:`read_object`.
        prefer_ema: Take the averaged weights (``model_ema``) of a file that has both kinds.
        sha256: Expected hash of the file.

    Raises:
        CheckpointError: Missing, damaged, hostile, or without model weights.
    """
    obj, flat = _read(path, sha256, verify=True)
    try:
        state_dict, source = unwrap(obj, prefer_ema=prefer_ema)
    except CheckpointError as error:
        raise CheckpointError(f'{os.fspath(path)}: {error}') from error
    meta = obj.get('meta')
    return Checkpoint(
        state_dict, '' if flat else source, meta if isinstance(meta, dict) else {}, os.fspath(path)
    )
