"""Which file a run goes on from."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from mmengine.logging import print_log

from evamm.checkpoints import CheckpointError, read_object

from ..strategies.sharded_checkpoint import STATE, read_sharded_state

# Checkpoint of a run that a signal has stopped, by iteration.
INTERRUPTED = 'interrupted_{}.pth'
# Where a resumed run looks first, and what it must find
_STATE = {
    'meta.epoch': int,
    'meta.iter': int,
    'state_dict': Mapping,
    'optimizer': Mapping,
    'message_hub.log_scalars': Mapping,
    'message_hub.runtime_info': Mapping,
    'message_hub.resumed_keys': Mapping,
}
_NUMBERED = re.compile(r'^(?P<stem>.*?)(?P<number>\d+)\.pth$')


def read_training_checkpoint(path: str | Path) -> dict:
    """Content of a checkpoint that a runner wrote in training.

    Of a folder that several processes wrote it is everything but the sharded tensors.

    Raises:
        CheckpointError: The file cannot be read, or holds weights without a state of training.
    """
    checkpoint = read_sharded_state(path) if Path(path).is_dir() else read_object(path)
    advice = 'Give it as load_from to start a new run from its weights.'
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{path}: cannot resume from it, it holds a {type(checkpoint).__name__}, not the state '
            'of a training run.'
        )
    missing = {'meta', 'state_dict', 'message_hub', 'optimizer'} - set(checkpoint)
    if missing:
        raise CheckpointError(
            f'{path}: cannot resume from it, {", ".join(sorted(missing))} is missing; it holds '
            f'weights only. {advice}'
        )
    for place, kind in _STATE.items():
        value = checkpoint
        for key in place.split('.'):
            value = value.get(key) if isinstance(value, Mapping) else None
        if not isinstance(value, kind) or (kind is int and value < 0):
            raise CheckpointError(
                f'{path}: cannot resume from it, {place} should be '
                f'{"a count" if kind is int else "a dict"}, found {type(value).__name__}; a runner '
                f'of mmengine did not write it. {advice}'
            )
    return checkpoint


def checkpoint_to_resume(path: str) -> str:
    """The checkpoint that ``--resume PATH`` means: the file, or the newest good one of a folder.

    Raises:
        CheckpointError: The folder has none.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir() or (folder / STATE).exists():
        return path  # a folder that is a checkpoint was written by several processes
    found = newest_good_checkpoint(folder)
    if found is None:
        raise CheckpointError(
            f'--resume {path}: the folder has no checkpoint of a training run such as epoch_1.pth.'
        )
    return found


def _candidates(work_dir: Path) -> list[Path]:
    """Numbered checkpoints (``epoch_3.pth``, ``iter_500.pth``), newest first.

    One kind of name is ordered by its number, several kinds by the time they were written.
    """
    folders = {work_dir}
    pointer = work_dir / 'last_checkpoint'
    # CheckpointHook(out_dir=...) writes elsewhere and leaves a pointer here, which is empty after
    # a crash at the wrong moment.
    if pointer.is_file() and (target := pointer.read_text().strip()):
        folders.add(Path(target).parent)
    found = []
    for folder in folders:
        for path in folder.glob('*.pth'):
            match = _NUMBERED.match(path.name)
            if match and not path.name.startswith(('best_', '.')) and path.exists():
                found.append((match['stem'], int(match['number']), path))
    if len({stem for stem, _, _ in found}) <= 1:
        return [path for *_, path in sorted(found, key=lambda item: item[1], reverse=True)]
    return [path for *_, path in sorted(found, key=lambda item: -item[2].stat().st_mtime_ns)]


def newest_good_checkpoint(work_dir: str | Path) -> str | None:
    """The newest checkpoint of a run that can be read; None if there is no checkpoint.

    A damaged one is reported and the one before is tried.

    Raises:
        CheckpointError: There are checkpoints, but none can be read.
    """
    candidates = _candidates(Path(work_dir))
    for path in candidates:
        try:
            read_training_checkpoint(path)
        except CheckpointError as error:
            print_log(f'Passing over a checkpoint: {error}', 'current', logging.WARNING)
        else:
            return str(path)
    if candidates:
        raise CheckpointError(
            f'{work_dir}: none of its {len(candidates)} checkpoints can be resumed from; see the '
            'warnings above. Remove them to start over, or give another file with --resume PATH.'
        )
    return None
