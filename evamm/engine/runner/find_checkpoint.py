"""Which file a run goes on from."""

import logging
import re
from pathlib import Path

from mmengine.logging import print_log

from evamm.checkpoints import CheckpointError, read_object

from ..strategies.sharded_checkpoint import read_sharded_state

# Checkpoint of a run that a signal has stopped, by iteration.
INTERRUPTED = 'interrupted_{}.pth'
_NUMBERED = re.compile(r'^(?P<stem>.*?)(?P<number>\d+)\.pth$')


def read_training_checkpoint(path: str | Path) -> dict:
    """Content of a checkpoint that a runner wrote in training.

    Of a folder that several processes wrote it is everything but the sharded tensors.

    Raises:
        CheckpointError: The file cannot be read, or holds weights without a state of training.
    """
    checkpoint = read_sharded_state(path) if Path(path).is_dir() else read_object(path)
    missing = {'meta', 'state_dict', 'message_hub', 'optimizer'} - set(checkpoint)
    if missing:
        raise CheckpointError(
            f'{path}: cannot resume from it, {", ".join(sorted(missing))} is missing; it holds '
            'weights only. Give it as load_from to start a new run from these weights.'
        )
    return checkpoint


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
