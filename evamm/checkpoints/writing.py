"""Writing checkpoints so that a crash at any moment leaves the old file or the new one."""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .checksum import ChecksumWriter
from .errors import CheckpointError
from .safetensors_file import save_safetensors

_TEMPORARY = re.compile(r'^\..+\.(?P<host>[\w-]+)\.(?P<pid>\d+)\.evamm-tmp$')


def _host() -> str:
    return re.sub(r'[^\w-]', '-', socket.gethostname())


def write_checkpoint(
    obj: Any, path: str | os.PathLike, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a checkpoint atomically.

    The data goes to a temporary file in the same folder, is forced to disk, and takes the place of
    ``path`` in one step. Files left behind by killed processes of this machine are removed. A
    torch file ends with a checksum of all its bytes.

    Args:
        obj: For a path ending in .safetensors a flat dict of tensors (or ``{'state_dict': ...}``);
            for any other ending whatever ``torch.save`` takes.
        path: Target; its folder must exist.
        metadata: Texts to put into a safetensors header.

    Raises:
        CheckpointError: Disk full, no permission, ...; a previous file is untouched.
    """
    path = Path(os.path.realpath(Path(path).expanduser()))
    if path.exists() and not path.is_file():
        # Taking the place of a device or a pipe would destroy it.
        kind = 'a folder' if path.is_dir() else 'no ordinary file'
        raise CheckpointError(f'{path}: is {kind}; give the path of a file.')
    temporary = path.with_name(f'.{path.name}.{_host()}.{os.getpid()}.evamm-tmp')
    try:
        remove_stale_files(path.parent)
        # 0o666 and the umask, as for any other file (tempfile would make it private).
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666))
        if path.suffix == '.safetensors':
            state_dict = obj.get('state_dict', obj)
            save_safetensors(state_dict, temporary, metadata or {})
        else:
            with temporary.open('wb') as file:
                writer = ChecksumWriter(file)
                torch.save(obj, writer)
                writer.finish()
        _force_to_disk(temporary)
        os.replace(temporary, path)
        _force_to_disk(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, CheckpointError):
            raise CheckpointError(f'{path}: {error}.') from error
        if not isinstance(error, Exception):
            raise
        raise CheckpointError(
            f'{path}: could not be written ({_reason(error)}); what was there before is untouched, '
            'free space or choose another folder.'
        ) from error


def _reason(error: BaseException) -> str:
    """What the system said, also where a library's error covers it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _force_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_stale_files(folder: str | os.PathLike) -> list[Path]:
    """Removes temporary files of processes of this machine that no longer run.

    Returns:
        The removed files.
    """
    removed = []
    for entry in os.scandir(folder):
        match = _TEMPORARY.match(entry.name)
        if match and match['host'] == _host() and not _runs(int(match['pid'])):
            Path(entry.path).unlink(missing_ok=True)
            removed.append(Path(entry.path))
    return removed


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
