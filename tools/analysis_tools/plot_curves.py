"""Draw loss, learning rate and validation curves of one or several runs as a PNG.

Example:
    python tools/analysis_tools/plot_curves.py work_dirs/eva02_tiny_p14_8xb16_in1k
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use('Agg')

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

COLOURS = ('#2563eb', '#dc2626', '#059669', '#d97706', '#7c3aed', '#0891b2')
# Bookkeeping of the logger, not curves.
NOT_CURVES = {'epoch', 'iter', 'step', 'time', 'data_time', 'memory', 'lr', 'base_lr', 'eta'}
RAW = '_origin'
STYLE = {
    'font.size': 10,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': '#9ca3af',
    'axes.labelcolor': '#374151',
    'axes.titlelocation': 'left',
    'axes.titleweight': 'bold',
    'axes.grid': True,
    'grid.color': '#e5e7eb',
    'xtick.color': '#6b7280',
    'ytick.color': '#6b7280',
    'legend.frameon': False,
}


class NoCurvesError(ValueError):
    """A path has no log of scalars."""


class Run:
    """Scalars of a run, also of one that was resumed several times.

    Args:
        path: Work folder, or one ``scalars.json``.

    Raises:
        NoCurvesError: No training log there.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name if path.is_dir() else path.parent.name
        files = sorted(path.glob('*/vis_data/scalars.json')) if path.is_dir() else [path]
        # A resumed run repeats what came after its checkpoint: the later log is the valid one.
        self.train: dict[int, dict] = {}
        self.val: dict[int, dict] = {}
        for file in files:
            if not file.is_file():
                continue
            records = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
            for record in records:
                if 'lr' in record or 'loss' in record:
                    self.train[record['step']] = record
                elif 'step' in record:
                    self.val[record['step']] = record
        if not self.train:
            raise NoCurvesError(
                f'{path}: no scalars of a training run (expected <time>/vis_data/scalars.json in a '
                'work folder, or such a file). Train with a LoggerHook interval that is not longer '
                'than an epoch.'
            )
        self.by_epoch = any('epoch' in record for record in self.train.values())
        self.epoch_length = self._epoch_length() if self.by_epoch else 1

    def _epoch_length(self) -> float:
        """Iterations per epoch, from the first log line of the first and of the last epoch."""
        firsts: dict[int, int] = {}
        for record in self.train.values():
            epoch = record['epoch']
            firsts[epoch] = min(firsts.get(epoch, record['iter']), record['iter'])
        first, last = min(firsts), max(firsts)
        if first == last:
            return max(record['iter'] for record in self.train.values()) / last
        return (firsts[last] - firsts[first]) / (last - first)

    def curve(self, key: str, *, val: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Epochs (iterations for iteration-based runs) and values of a scalar."""
        records = self.val if val else self.train
        points = sorted((step, record[key]) for step, record in records.items() if key in record)
        steps = np.array([step for step, _ in points], dtype=float)
        return steps if val else steps / self.epoch_length, np.array([v for _, v in points], float)

    def keys(self, *, val: bool = False) -> list[str]:
        """Names of the curves, in the order of the log."""
        records = self.val if val else self.train
        names = dict.fromkeys(key for record in records.values() for key in record)
        return [name for name in names if name not in NOT_CURVES]


def smooth(values: np.ndarray) -> np.ndarray:
    """Moving average over a thirtieth of the curve, shorter at its ends."""
    half = max(1, len(values) // 60)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(len(values)) - half, 0)
    high = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def panels(runs: list[Run]) -> list[str]:
    """Titles of the panels that have something to show."""
    names = ['loss', 'learning rate']
    if any('grad_norm' in run.keys() for run in runs):
        names.append('gradient norm')
    metrics = [key for run in runs for key in run.keys(val=True)]
    # EMAHook: metrics of the raw weights beside those of the average share a panel.
    metrics = [
        key for key in metrics if key.removesuffix(RAW) == key or key[: -len(RAW)] not in metrics
    ]
    return names + list(dict.fromkeys(metrics))


def draw_noisy(axis: plt.Axes, run: Run, key: str, colour: str, label: str) -> None:
    x, y = run.curve(key)
    axis.plot(x, y, color=colour, alpha=0.25, linewidth=1)
    axis.plot(x, smooth(y), color=colour, linewidth=1.8, label=label)


def draw_metric(axis: plt.Axes, run: Run, key: str, colour: str, row: int) -> None:
    """A validation curve, its best value in the corner, the raw weights' one dashed."""
    for name, style in ((key + RAW, '--'), (key, '-')):
        x, y = run.curve(name, val=True)
        if not len(x):
            continue
        alpha = 0.5 if style == '--' else 1
        axis.plot(x, y, style, color=colour, alpha=alpha, linewidth=1.8, marker='o', markersize=3)
        if style == '--':
            axis.plot([], [], '--', color='#6b7280', label='weights without averaging')
            continue
        best = int(np.argmin(y) if 'loss' in key else np.argmax(y))
        axis.text(
            0.98,
            0.04 + 0.08 * row,
            f'best {y[best]:.4g} at {x[best]:g}',
            color=colour,
            transform=axis.transAxes,
            ha='right',
            fontweight='bold',
            fontsize=9,
        )
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        axis.legend(handles[:1], labels[:1], loc='center right', fontsize=8)


def draw(runs: list[Run], title: str) -> plt.Figure:
    """One figure with a panel per quantity and a colour per run."""
    names = panels(runs)
    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = -(-len(names) // columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            rows, columns, figsize=(4.6 * columns, 3.4 * rows), layout='constrained', squeeze=False
        )
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        for name, axis in zip(names, axes.flat, strict=False):
            axis.set_title(name)
            axis.set_xlabel('epoch' if runs[0].by_epoch else 'iteration')
            for row, (run, colour) in enumerate(zip(runs, COLOURS * len(runs), strict=False)):
                if name == 'learning rate':
                    has_base = any('base_lr' in record for record in run.train.values())
                    key = 'base_lr' if has_base else 'lr'  # the rate before layer decay
                    axis.plot(*run.curve(key), color=colour, linewidth=1.8)
                    axis.yaxis.set_major_formatter('{x:g}')
                elif name in ('loss', 'gradient norm'):
                    key = 'grad_norm' if name == 'gradient norm' else name
                    draw_noisy(axis, run, key, colour, run.name)
                else:
                    draw_metric(axis, run, name, colour, row)
        if len(runs) > 1:
            handles, labels = axes.flat[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc='outside lower center', ncols=min(3, len(runs)))
        figure.suptitle(title, x=0.01, ha='left', fontsize=13, fontweight='bold')
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('runs', nargs='+', type=Path, help='work folders (or scalars.json files)')
    parser.add_argument(
        '--out',
        type=Path,
        help='picture (.png unless it says otherwise); default: curves.png in the first folder',
    )
    parser.add_argument('--title', help='heading; default: name of the run')
    args = parser.parse_args()
    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if args.out and not args.out.suffix:
        args.out = args.out.with_name(f'{args.out.name}.png')
    if args.out and args.out.suffix[1:].lower() not in known:
        parser.error(f'--out {args.out}: unknown kind of file, use one of {", ".join(known)}')
    try:
        runs = [Run(path) for path in args.runs]
    except (NoCurvesError, json.JSONDecodeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    folder = args.runs[0] if args.runs[0].is_dir() else args.runs[0].parent
    out = args.out or folder / 'curves.png'
    out.parent.mkdir(parents=True, exist_ok=True)
    title = args.title or (runs[0].name if len(runs) == 1 else f'{len(runs)} runs')
    draw(runs, title).savefig(out, dpi=150, facecolor='white')
    print(f'written: {out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
