"""Where the samples of a tar shard lie in it."""

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """Which members of a sample are its image and its text.

    Args:
        images: Extensions of images; the first one found counts.
        text: Extension of the text member.
    """

    images: tuple[str, ...]
    text: str


class TarIndex(NamedTuple):
    """Samples of one shard.

    Args:
        places: int64 [n, 5]: position of the sample's first header; offset and size of the image,
            of the text. A missing member has size -1.
        damage: Why the rest of the file cannot be read; empty if it can.
    """

    places: np.ndarray
    damage: str = ''


def split_name(name: str) -> tuple[str, str]:
    """Key and extension of a member: what is before and after the first dot of its file name."""
    folder, slash, base = name.rpartition('/')
    stem, _, extension = base.partition('.')
    return f'{folder}{slash}{stem}', extension.lower()


def _members(path: str) -> Iterator[tuple[str, int, int, int]]:
    """Name, header position, data offset and size of every file in a tar."""
    with tarfile.open(path, 'r:') as tar:
        while True:
            member = tar.next()
            if member is None:
                return
            tar.members.clear()  # it would keep all of them
            if member.isreg():
                yield member.name, member.offset, member.offset_data, member.size


def scan(path: str, layout: Layout) -> TarIndex:
    """Read all headers of a shard; the contents are jumped over.

    Raises:
        FileNotFoundError: There is no such file.
    """
    length = os.path.getsize(path)
    rows, key, damage, end = [], None, '', 0
    try:
        for name, header, offset, size in _members(path):
            if offset + size > length:
                damage = f'cut off inside {name}'
                break
            end = offset + -(-size // 512) * 512
            this, extension = split_name(name)
            if this != key:
                key = this
                rows.append([header, 0, -1, 0, -1])
            if extension in layout.images and rows[-1][2] < 0:
                rows[-1][1:3] = offset, size
            elif extension == layout.text:
                rows[-1][3:5] = offset, size
    except tarfile.TarError as error:
        damage = str(error) or type(error).__name__
    if not damage and length < end + 512:
        damage = 'cut off: it has no end mark'
    return TarIndex(np.array(rows, np.int64).reshape(-1, 5), damage)


def key_of(sample: bytes) -> str:
    """Key of a sample from its bytes in the tar file, beginning with its first header."""
    try:
        with tarfile.open(fileobj=io.BytesIO(sample), mode='r:') as tar:
            return split_name(tar.next().name)[0]
    except (tarfile.TarError, AttributeError):
        return 'unknown'


def load_index(path: str, layout: Layout, folder: Path) -> TarIndex:
    """The index of a shard: read from a folder of indices, or made and put there.

    Several processes may do so at once. An index belongs to the file as it is: a changed shard gets
    a new one.

    Args:
        path: A local shard.
        layout: Members that count.
        folder: Where indices are kept.
    """
    status = os.stat(path)
    identity = [os.path.realpath(path), status.st_size, status.st_mtime_ns, layout]
    name = hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()
    file = Path(folder) / name[:2] / f'{name}.npz'
    try:
        with np.load(file, allow_pickle=False) as saved:
            return TarIndex(saved['places'], str(saved['damage']))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, EOFError):
        pass  # damaged: made anew
    index = scan(path, layout)
    try:
        _write(index, file)
    except OSError:
        pass  # a full or read-only disk: only slower
    return index


def _write(index: TarIndex, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, suffix='.tmp')
    try:
        with os.fdopen(handle, 'wb') as stream:
            np.savez(stream, places=index.places, damage=np.array(index.damage))
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise
