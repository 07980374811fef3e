"""Checkpoints that all processes write together: a folder with one file of tensors from each.

Sharded tensors go through ``torch.distributed.checkpoint`` in its safetensors format, which holds
no code and loads on any number of processes; everything else is an ordinary file beside them
(``state.pth``), with the size and hash of every other file. The folder gets its name when it is
complete.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from mmengine.dist import all_gather_object, get_rank, is_distributed, is_main_process
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.tensor import DTensor

from evamm.checkpoints import (
    Checkpoint,
    CheckpointError,
    read_object,
    unwrap,
    write_checkpoint,
)

SHARDS = 'sharded_tensors'
STATE = 'state.pth'
_MARK = 'sharded tensor: '
_UNFINISHED = '.evamm-unfinished'


def take_out(tree: object, path: str = '') -> tuple[object, dict[str, Tensor]]:
    """Nested data with a mark in place of every sharded tensor, and these by their place."""
    if isinstance(tree, DTensor):
        return f'{_MARK}{path}', {path: tree.detach()}
    if not isinstance(tree, (Mapping, list, tuple)) or isinstance(tree, str):
        return tree, {}
    tensors: dict[str, Tensor] = {}
    pairs = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    result = {}
    for key, value in pairs:
        result[key], found = take_out(value, f'{path}/{key}' if path else str(key))
        tensors.update(found)
    return (result if isinstance(tree, Mapping) else type(tree)(result.values())), tensors


def put_in(tree: object, tensors: Mapping[str, Tensor]) -> object:
    """Undoes :func:`take_out`."""
    if isinstance(tree, str) and tree.startswith(_MARK):
        return tensors[tree.removeprefix(_MARK)]
    if isinstance(tree, Mapping):
        return {key: put_in(value, tensors) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(put_in(value, tensors) for value in tree)
    return tree


def _together(action: Callable[[], object], what: str) -> list:
    """Results of an action of all processes; a failure in one is an error in all."""
    try:
        result, failure = action(), None
    except Exception as error:
        result, failure = None, f'{type(error).__name__}: {error}'
    everyone = all_gather_object((result, failure))
    failures = [f'process {i}: {text}' for i, (_, text) in enumerate(everyone) if text]
    if failures:
        raise CheckpointError(f'{what}: {"; ".join(failures)}')
    return [result for result, _ in everyone]


def _digest(path: Path) -> tuple[str, int, str]:
    """Name, size and hash of a file that is safely on disk."""
    with path.open('rb') as file:
        os.fsync(file.fileno())
        digest = hashlib.sha256()
        for piece in iter(lambda: file.read(1 << 20), b''):
            digest.update(piece)
    return path.name, path.stat().st_size, digest.hexdigest()


def write_sharded(checkpoint: dict, path: str | os.PathLike) -> None:
    """Write ``checkpoint``, whose entry ``SHARDS`` has the sharded tensors, to the folder ``path``.

    Called by all processes. A folder of that name that exists is replaced at the end.

    Raises:
        CheckpointError: It could not be written; what was there before is untouched.
    """
    path = Path(path).absolute()
    temporary = path.with_name(f'.{path.name}{_UNFINISHED}')
    state = {key: value for key, value in checkpoint.items() if key != SHARDS}

    def prepare() -> None:
        if is_main_process():
            for stale in path.parent.glob(f'.*{_UNFINISHED}'):
                shutil.rmtree(stale)
            temporary.mkdir(parents=True)

    def write_tensors() -> list[tuple[str, int, str]]:
        writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        dcp.save(checkpoint[SHARDS], storage_writer=writer)
        own = sorted(temporary.glob(f'shard-{get_rank() + 1:05d}-*.safetensors'))
        return [_digest(file) for file in own]

    def finish() -> None:
        if not is_main_process():
            return
        write_checkpoint({**state, SHARDS: [entry for part in files for entry in part]}, rest)
        old = path.with_name(f'.{path.name}.old{_UNFINISHED}')
        if path.is_dir():
            path.rename(old)
        elif path.exists():
            path.unlink()
        temporary.rename(path)
        handle = os.open(path.parent, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
        shutil.rmtree(old, ignore_errors=True)

    rest = temporary / STATE
    what = f'{path}: could not be written; what was there before is untouched'
    _together(prepare, what)
    files = _together(write_tensors, what)
    _together(finish, what)


def read_sharded_state(path: str | os.PathLike, *, verify: bool = True) -> dict:
    """Everything but the sharded tensors of a folder, which are marks.

    Args:
        path: Folder that :func:`write_sharded` wrote.
        verify: Compare the hash of every file; without it only sizes.

    Raises:
        CheckpointError: A file is missing or not the one that was written.
    """
    path = Path(path)
    state = read_object(path / STATE)
    for name, size, digest in state.get(SHARDS, ()):
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise CheckpointError(f'{path}: {name} is missing; the checkpoint is not complete.')
        if file.stat().st_size != size or (verify and _digest(file)[2] != digest):
            raise CheckpointError(
                f'{file}: is damaged, its {"hash" if file.stat().st_size == size else "size"} is '
                'not the one that was written. Use an older checkpoint.'
            )
    return state


def read_sharded(
    path: str | os.PathLike,
    model: nn.Module | None = None,
    *,
    verify: bool = False,
    parts: Sequence[str] | None = None,
) -> dict:
    """A whole checkpoint from a folder, for this number of processes.

    Called by all processes of a sharded model.

    Args:
        path: Folder that :func:`write_sharded` wrote.
        model: Sharded model; its weights, their averages and the optimizer state of its parameters
            are read in its layout. Without it, or if it is not sharded, tensors are whole.
        verify: See :func:`read_sharded_state`.
        parts: Entries of the checkpoint to read; None for all.

    Raises:
        CheckpointError: A file is missing or damaged.
    """
    state = read_sharded_state(path, verify=verify)
    state.pop(SHARDS, None)
    if parts is not None:
        state = {key: value for key, value in state.items() if key in parts}
    reader = HuggingFaceStorageReader(str(path))
    stored = reader.read_metadata().state_dict_metadata
    # All parameters are cut along their first axis, so equal shapes have equal layouts.
    params = () if model is None else model.parameters()
    layouts = {param.shape: param.detach() for param in params if isinstance(param, DTensor)}
    targets = {}
    for name, meta in stored.items():
        if name.partition('/')[0] not in state:
            continue
        dtype = meta.properties.dtype
        if meta.size in layouts:
            targets[name] = torch.empty_like(layouts[meta.size], dtype=dtype)
        else:
            targets[name] = torch.empty(meta.size, dtype=dtype)
    if targets:
        alone = not is_distributed()
        dcp.load(targets, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=alone)
    return put_in(state, targets)


def _check_folder(path: str | os.PathLike) -> None:
    if not (Path(path) / STATE).is_file():
        raise CheckpointError(
            f'{path}: expected the folder of a sharded checkpoint with a file {STATE} in it.'
        )


def read_sharded_weights(path: str | os.PathLike, *, prefer_ema: bool = True) -> Checkpoint:
    """The model weights of a folder, whole; see :func:`evamm.checkpoints.read_checkpoint`.

    Called by all processes. Optimizer states are not read.

    Raises:
        CheckpointError: The folder is no such checkpoint, or not complete, or damaged.
    """
    _check_folder(path)
    found = read_sharded(path, verify=True, parts=('state_dict', 'ema_state_dict', 'meta'))
    state_dict, source = unwrap(found, prefer_ema=prefer_ema)
    return Checkpoint(state_dict, source, found.get('meta') or {}, os.fspath(path))


def merge_shards(folder: str | os.PathLike, target: str | os.PathLike) -> None:
    """Write a checkpoint folder as the one file that a run without shards would have written.

    For one process; it holds the whole checkpoint in memory.

    Args:
        folder: Folder that :func:`write_sharded` wrote.
        target: File to write, replaced in one move if it exists.

    Raises:
        CheckpointError: The folder is no such checkpoint, or not complete, or damaged.
    """
    _check_folder(folder)
    Path(target).absolute().parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(read_sharded(folder, verify=True), target)
