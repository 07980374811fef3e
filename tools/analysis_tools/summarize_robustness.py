"""Join results of tools/test_robustness.py into one table, one row per model.

Example:
    python tools/analysis_tools/summarize_robustness.py work_dirs/*/robustness.json
"""

import argparse
import json
import sys
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evamm.evaluation import format_robustness_table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('results', nargs='+', type=Path, help='files robustness.json')
    parser.add_argument('--top5', action='store_true', help='top-5 instead of top-1 accuracy')
    parser.add_argument('--digits', type=int, default=1, help='digits after the point (default: 1)')
    return parser.parse_args()


def read_row(path: Path, figure: str) -> tuple[str, dict[str, float]]:
    """Return name and accuracies of one result file."""
    content = json.loads(path.read_text(encoding='utf-8'))
    name = content['name'] + (' (partial copies)' if content['partial'] else '')
    return name, {key: value[figure] for key, value in content['results'].items()}


def main() -> int:
    args = parse_args()
    figure = 'top5' if args.top5 else 'top1'
    rows = []
    for path in args.results:
        try:
            rows.append(read_row(path, figure))
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(
                f'error: {path} is not a result of tools/test_robustness.py ({error!r})',
                file=sys.stderr,
            )
            return 1
    print(format_robustness_table(rows, digits=args.digits))
    return 0


if __name__ == '__main__':
    sys.exit(main())
