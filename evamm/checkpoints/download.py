"""Weights from the network: downloaded once, checked, cached."""

import hashlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .errors import CheckpointError
from .hashing import check_sha256

_TIMEOUT = 60  # seconds without a byte


def is_url(path: str | os.PathLike) -> bool:
    return os.fspath(path).startswith(('http://', 'https://'))


def cache_folder() -> Path:
    """``$EVAMM_HOME``, else ``$XDG_CACHE_HOME/evamm``, else ``~/.cache/evamm``."""
    if home := os.environ.get('EVAMM_HOME'):
        return Path(home).expanduser()
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(cache).expanduser() / 'evamm'


def cache_path(url: str) -> Path:
    """Where a download is kept: ``checkpoints/<host>/<path>`` below the cache folder."""
    parts = urlsplit(url)
    pieces = [piece for piece in unquote(parts.path).split('/') if piece not in ('', '.', '..')]
    if not pieces or not parts.hostname:
        raise CheckpointError(f'{url}: expected the address of a file.')
    if parts.query:
        pieces[-1] = f'{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}-{pieces[-1]}'
    return cache_folder().joinpath('checkpoints', parts.hostname, *pieces)


def fetch_weights(path_or_url: str | os.PathLike, *, sha256: str | None = None) -> Path:
    """A local path for a file or an http(s) address; downloads what is not in the cache.

    Args:
        path_or_url: Local path (returned as it is) or address.
        sha256: Expected hash, or its first 8 or more digits.

    Raises:
        CheckpointError: No connection, an incomplete download, or another hash; nothing is left
            in the cache.
    """
    if not is_url(path_or_url):
        path = Path(path_or_url).expanduser()
        if sha256 is not None and path.is_file():
            check_sha256(path, sha256)
        return path
    url = os.fspath(path_or_url)
    target = cache_path(url)
    temporary = target.with_name(f'.{target.name}.{os.getpid()}.part')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _one_process(target):
            if not target.is_file():
                _download(url, temporary)
                if sha256 is not None:
                    check_sha256(temporary, sha256)
                os.replace(temporary, target)
                return target
    except (OSError, urllib.error.URLError) as error:
        raise CheckpointError(
            f'{url}: could not be downloaded ({getattr(error, "reason", None) or error}); download '
            f'it yourself and give its path, or put it at {target}.'
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    if sha256 is not None:
        check_sha256(target, sha256)
    return target


@contextmanager
def _one_process(target: Path) -> Iterator[None]:
    """The processes of a distributed run ask for the same file at once; one fetches it."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: each process fetches its own
        yield
        return
    locks = cache_folder() / 'locks'
    locks.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(os.fspath(target).encode()).hexdigest()[:16]
    with open(locks / name, 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the file is closed, even by a crash
        yield


def _download(url: str, target: Path) -> None:
    request = urllib.request.Request(url, headers={'User-Agent': 'evamm'})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, target.open('wb') as file:
        expected = int(answer.headers.get('Content-Length') or 0)
        done, shown = 0, -10
        while chunk := answer.read(1 << 20):
            file.write(chunk)
            done += len(chunk)
            percent = 100 * done // max(expected, done)
            if expected > 10 << 20 and (percent >= shown + 10 or done == expected):
                shown = percent
                print(f'{url}: {percent} % of {expected >> 20} MiB', file=sys.stderr, flush=True)
        file.flush()
        os.fsync(file.fileno())
    if expected and done != expected:
        raise CheckpointError(
            f'{url}: expected {expected} bytes, got {done}; the connection broke, try again.'
        )
