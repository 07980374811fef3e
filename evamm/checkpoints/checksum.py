"""A sha256 of the whole file inside a torch zip file, as the comment that ends the archive."""

import hashlib
import re
import struct
from pathlib import Path
from typing import BinaryIO

from .errors import CheckpointError

_MARK = b'evamm sha256 '
_COMMENT_BYTES = len(_MARK) + 64
_COMMENT = re.compile(re.escape(_MARK) + rb'[0-9a-f]{64}')
_LENGTH = struct.Struct('<H')


class ChecksumWriter:
    """File for ``torch.save`` that hashes what it writes and ends it with the hash.

    The last field of a zip file is the length of its comment, 0 as torch writes it. Everything
    before that field is hashed. Any zip reader takes the result for an ordinary archive.

    Args:
        file: Empty file, open for writing in binary mode.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._held = b''

    def write(self, data: bytes | memoryview) -> int:
        """Write all but the last two bytes, which may be the length of the comment."""
        size = len(data)
        if size < 2:
            data = self._held + bytes(data)
        elif self._held:
            self._put(self._held)
        view = memoryview(data)
        self._held = bytes(view[-2:])
        self._put(view[:-2])
        return size

    def _put(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._file.write(data)

    def flush(self) -> None:
        """Flush the file below."""
        self._file.flush()

    def finish(self) -> None:
        """Write the comment. To be called once, at the end."""
        if self._held != _LENGTH.pack(0):
            raise CheckpointError('torch.save did not end with an empty zip comment')
        comment = _MARK + self._digest.hexdigest().encode()
        self._file.write(_LENGTH.pack(len(comment)) + comment)


def verify_checksum(path: Path) -> bool:
    """Compare a file with the hash in it.

    Returns:
        Whether there is one; files of other writers have none.

    Raises:
        CheckpointError: The file is not what was written.
    """
    with path.open('rb') as file:
        size = file.seek(0, 2)
        tail_bytes = _COMMENT_BYTES + _LENGTH.size
        if size < tail_bytes:
            return False
        file.seek(size - tail_bytes)
        tail = file.read()
        if not _COMMENT.fullmatch(tail[_LENGTH.size :]):
            return False
        file.seek(0)
        digest = hashlib.sha256()
        left = size - tail_bytes
        while left:
            chunk = file.read(min(left, 1 << 22))
            if not chunk:
                break
            digest.update(chunk)
            left -= len(chunk)
    expected = _LENGTH.pack(_COMMENT_BYTES) + _MARK + digest.hexdigest().encode()
    if tail != expected:
        raise CheckpointError('it is damaged (its bytes do not fit the sha256 at its end)')
    return True
