"""Damage a training checkpoint in many ways; every damage is found or does no harm.

Example:
    python -m benchmarks.reliability.damage --number 1000
"""

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from evamm.checkpoints import CheckpointError, read_object

from . import tiny_run
from .kill_storm import same


def cut(data: bytes, rng: random.Random) -> bytes:
    """The file ends early, as after a crash or a full disk."""
    return data[: rng.randrange(len(data))]


def flip_byte(data: bytes, rng: random.Random) -> bytes:
    """One byte has another value."""
    position = rng.randrange(len(data))
    changed = data[position] ^ rng.randrange(1, 256)
    return data[:position] + bytes([changed]) + data[position + 1 :]


def zero_block(data: bytes, rng: random.Random) -> bytes:
    """One block of the disk was never written."""
    position = rng.randrange(len(data)) // 4096 * 4096
    return data[:position] + bytes(len(data[position : position + 4096])) + data[position + 4096 :]


DAMAGES = {'truncation': cut, 'byte flip': flip_byte, 'zeroed 4 KiB block': zero_block}


def try_damages(
    checkpoint: Path, damage: Callable[[bytes, random.Random], bytes], number: int, seed: int = 0
) -> Counter:
    """Damage a checkpoint ``number`` times and read it.

    Returns:
        How often it was found (CheckpointError), harmless (the content is the same bit for bit),
        harmful (another content) or a crash (any other exception).
    """
    rng = random.Random(seed)
    good = checkpoint.read_bytes()
    expected = read_object(checkpoint)
    outcomes = Counter(found=0, harmless=0, harmful=0, crash=0)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(number):
            # A new name each time: the content of the one before may still be mapped.
            path = Path(folder, f'{i}.pth')
            path.write_bytes(damage(good, rng))
            try:
                outcome = 'harmless' if same(read_object(path), expected) else 'harmful'
            except CheckpointError:
                outcome = 'found'
            except Exception:
                outcome = 'crash'
            outcomes[outcome] += 1
            path.unlink()
    return outcomes


def make_checkpoint(folder: Path) -> Path:
    """A checkpoint of a real run."""
    from mmengine.config import Config

    from evamm.engine.runner import launch

    cfg = Config.fromfile(tiny_run.write_config(folder, 'run', epochs=2, interval=6))
    launch.build_runner(cfg).train()
    return folder / 'run' / 'iter_12.pth'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path, nargs='?', help='default: one of a small run')
    parser.add_argument('--number', type=int, default=1000, help='of damages of each kind')
    args = parser.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or make_checkpoint(Path(folder))
        print(f'{checkpoint.name}: {checkpoint.stat().st_size} bytes')
        for name, damage in DAMAGES.items():
            outcomes = try_damages(checkpoint, damage, args.number)
            bad += outcomes['harmful'] + outcomes['crash']
            print(f'{name:20} ' + '  '.join(f'{k} {v}' for k, v in outcomes.items()))
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
