"""Write the digits (5,000 real MNIST images) in the on-disk format of each task.

Example:
    python tools/dataset_converters/digits.py data/digits
"""

import argparse
import sys
import time
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evamm.datasets.digits import TASKS, DigitsUnavailableError
from evamm.datasets.digits.folder import read_manifest


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder that gets one folder per task')
    parser.add_argument(
        '--task',
        nargs='+',
        choices=sorted(TASKS),
        default=sorted(TASKS),
        help='tasks to write data for (default: all)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the split (default: 0)')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace data of another seed that is there'
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.seed < 0:
        print(f'error: --seed {args.seed}: must be at least 0.', file=sys.stderr)
        return 2
    for task in args.task:
        start = time.monotonic()
        found = (read_manifest(args.out / task) or {}).get('seed', args.seed)
        if found != args.seed and not args.overwrite:
            print(
                f'error: {args.out / task} was written with --seed {found}; choose another folder, '
                'or add --overwrite to replace it.',
                file=sys.stderr,
            )
            return 1
        try:
            written = TASKS[task](args.out, seed=args.seed)
        except DigitsUnavailableError as error:
            print(f'error: {error}', file=sys.stderr)
            return 1
        except OSError as error:
            why = str(error) if error.errno is None else f'{error.strerror}: {error.filename}'
            print(f'error: {args.out / task} cannot be written ({why}).', file=sys.stderr)
            return 1
        state = f'written in {time.monotonic() - start:.1f} s' if written else 'up to date'
        print(f'{args.out / task}: {state}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
