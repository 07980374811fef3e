"""Turns a sharded checkpoint (a folder with a file of each process) into one ordinary file.

python tools/merge_shards.py work_dirs/RUN/epoch_10.pth epoch_10_whole.pth

The file is the one that a run without shards would have written: it resumes, loads, converts and
exports as any other. Every part is checked against its hash. Needs memory for the whole checkpoint.
"""

import argparse
import sys
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evamm.checkpoints import CheckpointError
from evamm.engine.strategies.sharded_checkpoint import merge_shards


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', metavar='FOLDER')
    parser.add_argument('target', metavar='FILE.pth')
    parser.add_argument('--force', action='store_true', help='overwrite FILE.pth')
    options = parser.parse_args(args)
    if Path(options.target).exists() and not options.force:
        print(f'error: {options.target} exists; give --force to overwrite it', file=sys.stderr)
        return 1
    try:
        merge_shards(options.source, options.target)
    except CheckpointError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'written: {options.target}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
