"""Whatever goes wrong while writing, the file that was there stays."""

import os
import resource
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evamm.checkpoints import (
    CheckpointError,
    read_checkpoint,
    read_object,
    remove_stale_files,
    write_checkpoint,
)

SUFFIXES = pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
OLD = {'weight': torch.ones(3)}
NEW = {'weight': torch.zeros(3), 'more': torch.zeros(200_000)}


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow beyond 100 kB, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@SUFFIXES
def test_full_disk(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f'file{suffix}'
    write_checkpoint(OLD, path)
    before = path.read_bytes()
    with small_disk(), pytest.raises(CheckpointError, match='File too large.*untouched') as error:
        write_checkpoint(NEW, path)
    assert str(path) in str(error.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@SUFFIXES
@pytest.mark.parametrize('call', ['replace', 'fsync'])
def test_failure_at_the_last_step(
    suffix: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f'file{suffix}'
    write_checkpoint(OLD, path)

    def fail(*args: object) -> None:
        raise PermissionError(13, 'Permission denied')

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(CheckpointError, match='Permission denied'):
            write_checkpoint(NEW, path)
    assert torch.equal(read_checkpoint(path).state_dict['weight'], OLD['weight'])
    assert os.listdir(tmp_path) == [path.name]


def test_interrupt_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, 'save', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(OLD, tmp_path / 'file.pth')
    assert os.listdir(tmp_path) == []


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='No such file or directory'):
        write_checkpoint(OLD, tmp_path / 'no' / 'file.pth')


def test_data_reaches_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File, then rename, then folder: any other order can lose the checkpoint in a power cut."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def traced_fsync(handle: int) -> None:
        steps.append('folder' if stat.S_ISDIR(os.fstat(handle).st_mode) else 'file')
        fsync(handle)

    def traced_replace(source: object, target: object) -> None:
        steps.append('rename')
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', traced_fsync)
    monkeypatch.setattr(os, 'replace', traced_replace)
    write_checkpoint(OLD, tmp_path / 'file.pth')
    assert steps == ['file', 'rename', 'folder']


def test_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    host = socket.gethostname()
    dead = tmp_path / f'.file.pth.{host}.{process.pid}.evamm-tmp'
    kept = [
        tmp_path / f'.file.pth.{host}.{os.getppid()}.evamm-tmp',  # runs
        tmp_path / f'.file.pth.other-{host}.{process.pid}.evamm-tmp',  # another machine
        tmp_path / 'notes.tmp',
    ]
    for path in (dead, *kept):
        path.touch()
    assert remove_stale_files(tmp_path) == [dead]
    dead.touch()
    write_checkpoint(OLD, tmp_path / 'file.pth')
    assert not dead.exists() and all(path.exists() for path in kept)


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_checkpoint(OLD, tmp_path / 'file.pth')
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / 'file.pth').stat().st_mode) == 0o640


def test_link_keeps_pointing_to_the_file(tmp_path: Path) -> None:
    (tmp_path / 'link.pth').symlink_to(tmp_path / 'file.pth')
    write_checkpoint(OLD, tmp_path / 'link.pth')
    assert (tmp_path / 'link.pth').is_symlink()
    assert torch.equal(read_object(tmp_path / 'file.pth')['weight'], OLD['weight'])


def test_safetensors_takes_views_and_shared_memory(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        'a': base,
        'b': base,
        'row': base[1],
        'turned': base.t(),
        'number': base[0, 1],
        'empty': torch.zeros(0, 3),
        'copy': base.clone().requires_grad_(),
    }
    path = tmp_path / 'file.safetensors'
    write_checkpoint(tensors, path, metadata={'dialect': 'timm'})
    found = load_file(path)  # the library itself can read it
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    assert path.stat().st_size < 3000
    assert read_checkpoint(path).meta['dialect'] == 'timm'


def test_safetensors_holds_tensors_only(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='epoch is int.*write a .pth file'):
        write_checkpoint({'a': torch.ones(1), 'epoch': 3}, tmp_path / 'file.safetensors')
    assert os.listdir(tmp_path) == []


@SUFFIXES
def test_devices_and_pipes_are_not_replaced(suffix: str, tmp_path: Path) -> None:
    pipe = tmp_path / f'pipe{suffix}'
    os.mkfifo(pipe)
    with pytest.raises(CheckpointError, match='no ordinary file'):
        write_checkpoint(OLD, pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]
