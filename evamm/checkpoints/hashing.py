"""Hashes of files."""

import hashlib
import os
from pathlib import Path

from .errors import CheckpointError


def file_sha256(path: str | os.PathLike) -> str:
    """sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Raises CheckpointError unless the hash of a file begins with ``expected`` (>= 8 digits)."""
    expected = expected.lower()
    if len(expected) < 8 or not set(expected) <= set('0123456789abcdef'):
        raise CheckpointError(f'sha256={expected!r} must be 8 to 64 hexadecimal digits.')
    found = file_sha256(path)
    if not found.startswith(expected):
        raise CheckpointError(
            f'{path}: expected sha256 {expected}, found {found[: len(expected)]}; the file is '
            'damaged or another one, get it again.'
        )
