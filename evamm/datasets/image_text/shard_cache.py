"""Local copies of shards behind URLs."""

import contextlib
import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 20
_TRIES = 3


class ShardUnavailableError(OSError):
    """A shard could not be fetched."""


def open_url(url: str) -> object:
    """Open what a URL names, by webdataset; ``s3://`` goes through the AWS command line tool."""
    try:
        from webdataset import gopen
    except ImportError as error:
        raise ImportError(
            f'ImageTextShards: {url} needs the package webdataset ({error}). Install the extra '
            'that brings it: pip install "evamm[clip]".'
        ) from error
    if url.startswith('s3://'):
        url = f'pipe:aws s3 cp {url} -'
    return gopen(url, 'rb')


class ShardCache:
    """Fetches shards whole, once for all processes of a machine, and deletes those unused longest.

    Args:
        folder: Where copies are kept; on a local disk.
        limit: Most copies kept. At least the windows of all processes of the machine must fit.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder = Path(folder)
        self.limit = limit

    def path(self, url: str) -> Path:
        """Where the copy of a shard is."""
        digest = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
        name = re.sub(r'[^\w.-]+', '_', url.rstrip(' -').rpartition('/')[2])[-80:]
        return self.folder / f'{digest}-{name}'.removesuffix('.tar')

    def get(self, url: str) -> str:
        """A local copy, fetched if there is none.

        Raises:
            ShardUnavailableError: Fetching failed three times.
        """
        path = self.path(url)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._lock(path):
                if not path.exists():  # another process may have been quicker
                    self._fetch(url, path)
                    self._drop_oldest(path)
        with contextlib.suppress(OSError):
            os.utime(path, (time.time(), 0))  # when it was used last; see `_fetch` for the 0
        return str(path)

    def _fetch(self, url: str, path: Path) -> None:
        for attempt in range(1, _TRIES + 1):
            handle, temporary = tempfile.mkstemp(dir=self.folder, suffix='.part')
            try:
                with os.fdopen(handle, 'wb') as file:
                    source = open_url(url)
                    try:
                        while chunk := source.read(_CHUNK):
                            file.write(chunk)
                    finally:
                        source.close()  # raises if the command behind it has failed
                    if file.tell() == 0:
                        raise OSError('nothing came')
                # The index goes by size and time of the file: let a copy of the same shard,
                # fetched again, have the same ones.
                os.utime(temporary, (time.time(), 0))
                os.replace(temporary, path)
                return
            except (OSError, ValueError) as error:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                if attempt == _TRIES:
                    raise ShardUnavailableError(
                        f'the shard {url} cannot be fetched (tried {_TRIES} times): {error}'
                    ) from error
                time.sleep(2**attempt - 1)

    @contextlib.contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        # A few files for all shards: nobody would clear up one for each.
        with open(self.folder / f'{path.name[:2]}.lock', 'w') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _drop_oldest(self, newest: Path) -> None:
        """Delete copies beyond the limit; processes that have one open can still read it."""
        copies = []
        for entry in os.scandir(self.folder):
            if not entry.name.endswith(('.part', '.lock')) and entry.name != newest.name:
                with contextlib.suppress(OSError):
                    copies.append((entry.stat().st_atime, entry.path))
        copies.sort()
        for _, path in copies[: max(0, len(copies) + 1 - self.limit)]:
            with contextlib.suppress(OSError):
                os.unlink(path)
