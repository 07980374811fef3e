"""The EVA cycle on digits: CLIP, its tower as teacher, pre-training, few labels, a second CLIP.

Every step is an ordinary tool with a config of configs/digits, shown with its command. What is done
already is not done again. It ends with one table of what was measured.

Example:
    python tools/eva_cycle.py
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

try:
    import evamm
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evamm import compat

# Threads that wait without spinning: no slower alone, and many times faster on a busy machine.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
compat.require('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain')

import mmpretrain.models  # noqa: F401
from mmengine.config import Config

import evamm.engine
import evamm.models  # noqa: F401
from evamm.datasets.digits.folder import read_manifest
from evamm.datasets.digits.scene_classes import LISTS
from evamm.engine.runner.steps import Runs, Step, StepFailedError, write_json

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / 'tools'
MARKER = '.eva_cycle'
DATA = Path('data/digits')
CONFIGS = Path(os.path.relpath(ROOT / 'configs' / 'digits'))
CLIP = CONFIGS / 'eva02_clip_tiny_digits.py'
SECOND_CLIP = CONFIGS / 'eva02_clip_tiny_digits_short.py'
MIM = CONFIGS / 'eva02_mim_tiny_digits.py'
CACHED_MIM = CONFIGS / 'eva02_mim_tiny_digits_cached.py'
FEW_LABELS = CONFIGS / 'eva02_tiny_digit_scenes.py'
LABELS = (100, 1000)
STARTS = ('scratch', 'mim')
COMPARED_STEPS = 200

TINY_ITERS = 8


def tiny(batch_size: int, *loaders: str) -> list[str]:
    """Settings of a short run on little data."""
    options = [f'train_dataloader.batch_size={batch_size}', f'train_cfg.max_iters={TINY_ITERS}']
    options += [f'train_cfg.val_interval={TINY_ITERS}', 'param_scheduler.warmup=2']
    options += [f'param_scheduler.end={TINY_ITERS}', 'default_hooks.logger.interval=1']
    options += [f'default_hooks.checkpoint.interval={TINY_ITERS}']
    for loader in loaders:
        options += [f'{loader}_dataloader.num_workers=0']
        options += [f'{loader}_dataloader.persistent_workers=False']
    if 'val' in loaders:
        options.append('val_dataloader.dataset.indices=50')
    return options


_FEW_CROPS = [f'train_dataloader.dataset.{key}' for key in ('indices=50', 'pipeline.1.num_views=2')]
TINY = {
    CLIP: tiny(20, 'train', 'val'),
    SECOND_CLIP: tiny(20, 'train', 'val'),
    MIM: [*tiny(25, 'train', 'val'), *_FEW_CROPS],
    CACHED_MIM: [*tiny(25, 'train'), *_FEW_CROPS],
    FEW_LABELS: tiny(10, 'train', 'val'),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/eva_cycle'), help=' ')
    parser.add_argument('--seeds', type=int, default=3, help='runs of everything but the teacher')
    parser.add_argument(
        '--jobs', type=int, default=len(os.sched_getaffinity(0)), help='runs at a time'
    )
    parser.add_argument('--tiny', action='store_true', help='a few steps of everything, as a check')
    parser.add_argument(
        '--fresh', action='store_true', help='delete the work folder and begin anew'
    )
    return parser.parse_args()


class Cycle:
    """The steps and the files between them.

    Args:
        work_dir: Folder for everything.
        seeds: Number of repetitions.
        tiny: A few iterations of each.
    """

    def __init__(self, work_dir: Path, seeds: int, tiny: bool) -> None:
        self.work_dir, self.seeds, self.tiny = work_dir, range(seeds), tiny
        self.teacher = self._train('clip', CLIP, resumes=True)
        self.teacher_file = self._checkpoint(self.teacher, CLIP)
        tiny_test = [
            f'test_dataloader.{key}' for key in ('num_workers=0', 'persistent_workers=False')
        ]
        self.tested = Step(
            work_dir / 'clip_test',
            TOOLS / 'test.py',
            (
                *(str(CLIP), str(self.teacher_file), '--work-dir', str(work_dir / 'clip_test')),
                *('--out', str(work_dir / 'clip_test' / 'metrics.json'), '--out-item', 'metrics'),
                *(['--cfg-options', *tiny_test] if tiny else []),
            ),
            needs=(self.teacher_file,),
        )
        features = work_dir / 'features'
        use_teacher = f'model.teacher.init_cfg.checkpoint={self.teacher_file}'
        use_cache = f'train_dataloader.dataset.pipeline.3.cache={features}'
        self.cache = Step(
            features,
            TOOLS / 'cache_teacher.py',
            (
                *(str(MIM), '--out', str(features), '--cfg-options', use_teacher),
                *(_FEW_CROPS if tiny else []),
            ),
            needs=(self.teacher_file,),
            resumes=True,
        )
        meta = features / 'meta.json'
        compared = [f'train_cfg.max_iters={COMPARED_STEPS}', 'train_cfg.val_interval=1000']
        compared += ['default_hooks.logger.interval=1', 'default_hooks.checkpoint.interval=1000']
        self.live = self._train('live', MIM, use_teacher, *compared, needs=[self.teacher_file])
        self.from_cache = self._train('cached', CACHED_MIM, use_cache, *compared, needs=[meta])
        self.mim = [
            self._train(f'mim_{seed}', CACHED_MIM, use_cache, seed=seed, needs=[meta], resumes=True)
            for seed in self.seeds
        ]
        self.mim_files = [self._checkpoint(step, CACHED_MIM) for step in self.mim]
        self.few = {
            (labels, start): [self._few_labels(labels, start, seed) for seed in self.seeds]
            for labels in LABELS
            for start in STARTS
        }
        self.second = {
            start: [
                self._train(
                    f'second_clip_{start}_{seed}',
                    SECOND_CLIP,
                    *self._start(start, seed),
                    seed=seed,
                    needs=self._start_file(start, seed),
                )
                for seed in self.seeds
            ]
            for start in STARTS
        }

    def _few_labels(self, labels: int, start: str, seed: int) -> Step:
        return self._train(
            f'labels_{labels}_{start}_{seed}',
            FEW_LABELS,
            f'train_dataloader.dataset.ann_file=meta/train_{labels}_{seed}.txt',
            *self._start(start, seed),
            seed=seed,
            needs=self._start_file(start, seed),
        )

    def _start_file(self, start: str, seed: int) -> list[Path]:
        return [] if start == 'scratch' else [self.mim_files[seed]]

    def _start(self, start: str, seed: int) -> list[str]:
        prefix = 'model.backbone.init_cfg'
        return [
            option
            for path in self._start_file(start, seed)
            for option in (f'{prefix}.type=Pretrained', f'{prefix}.checkpoint={path}')
        ]

    def _train(
        self,
        name: str,
        config: Path,
        *options: str,
        seed: int = 0,
        needs: Sequence[Path] = (),
        resumes: bool = False,
    ) -> Step:
        folder = self.work_dir / name
        arguments = [str(config), '--work-dir', str(folder), *(['--resume'] if resumes else [])]
        options = [*options, f'randomness.seed={seed}', *(TINY[config] if self.tiny else [])]
        arguments += ['--cfg-options', *options]
        return Step(folder, TOOLS / 'train.py', tuple(arguments), tuple(needs), resumes)

    def _checkpoint(self, step: Step, config: Path) -> Path:
        length = TINY_ITERS if self.tiny else Config.fromfile(config).train_cfg.max_iters
        return step.folder / f'iter_{length}.pth'

    def run(self, jobs: int) -> None:
        """All steps, in the order in which they need each other."""
        seeds = [*self.mim, *self.second['scratch']]
        seeds += [step for labels in LABELS for step in self.few[labels, 'scratch']]
        after = [*self.second['mim']]
        after += [step for labels in LABELS for step in self.few[labels, 'mim']]
        runs = Runs(total=5 + len(seeds) + len(after))
        heading('1/5 A small EVA-CLIP on captioned scenes')
        runs([self.teacher])
        runs([self.tested])
        heading('2/5 Its image tower as teacher: features of all crops, once')
        runs([self.cache])
        heading('3/5 Pre-training with the teacher in the loop and from the cache, the same steps')
        runs([self.live])
        runs([self.from_cache])
        heading('4/5 Pre-training; few labels and a second CLIP from scratch')
        runs(seeds, jobs)
        heading('5/5 Few labels and a second CLIP from the pre-trained weights')
        runs(after, jobs)

    def results(self) -> dict:
        """Everything that was measured."""
        metrics = json.loads((self.tested.folder / 'metrics.json').read_text(encoding='utf-8'))
        losses = [step.series('loss') for step in (self.live, self.from_cache)]
        times = [step.series('time')[5:] for step in (self.live, self.from_cache)]
        return {
            'teacher_top1': metrics['accuracy/top1'],
            'compared_steps': len(losses[0]),
            'first_loss': losses[0][0],
            'last_loss': losses[0][-1],
            'largest_difference': max(abs(a - b) for a, b in zip(*losses, strict=True)),
            'live_step': statistics.median(times[0]),
            'cached_step': statistics.median(times[1]),
            'cache_seconds': self.cache.seconds,
            'mim_loss': [step.series('loss')[-1] for step in self.mim],
            'top1': {
                **{
                    f'{labels} labels': {start: self._top1(labels, start) for start in STARTS}
                    for labels in LABELS
                },
                'second CLIP, zero-shot': {
                    start: [step.series('accuracy/top1')[-1] for step in self.second[start]]
                    for start in STARTS
                },
            },
            'seconds': {step.folder.name: round(step.seconds, 1) for step in self.steps()},
        }

    def _top1(self, labels: int, start: str) -> list[float]:
        return [step.series('accuracy/top1')[-1] for step in self.few[labels, start]]

    def steps(self) -> Iterator[Step]:
        yield from (self.teacher, self.tested, self.cache, self.live, self.from_cache, *self.mim)
        for group in (*self.few.values(), *self.second.values()):
            yield from group


def heading(text: str) -> None:
    print(f'\n=== {text} ===', flush=True)


def mean_and_spread(values: Sequence[float]) -> str:
    each = ', '.join(f'{value:.1f}' for value in values)
    return f'{statistics.mean(values):.1f} ± {spread(values):.1f} ({each})'


def spread(values: Sequence[float]) -> float:
    """Half of what lies between the best and the worst seed."""
    return (max(values) - min(values)) / 2


def report(results: dict) -> str:
    """The table."""
    lines = [
        f'Teacher, zero-shot: {results["teacher_top1"]:.1f} % of 1,000 scenes of unseen digits.',
        f'Loss with the teacher in the loop and from the cache: {results["compared_steps"]} steps, '
        f'from {results["first_loss"]:.4f} to {results["last_loss"]:.4f}, largest difference '
        f'{results["largest_difference"]:.1e}.',
        f'A step takes {1000 * results["live_step"]:.0f} ms with the teacher, '
        f'{1000 * results["cached_step"]:.0f} ms from the cache '
        f'({results["live_step"] / results["cached_step"]:.2f} times faster); writing the cache '
        f'took {results["cache_seconds"]:.0f} s.',
        '',
        '| top-1 in %, mean ± half the range (each seed) | from scratch | from MIM | gain | '
        'more than both spreads |',
        '| :- | :- | :- | :- | :- |',
    ]
    for name, starts in results['top1'].items():
        gain = statistics.mean(starts['mim']) - statistics.mean(starts['scratch'])
        clear = gain > spread(starts['scratch']) + spread(starts['mim'])
        cells = [name, *(mean_and_spread(starts[start]) for start in STARTS)]
        lines.append(f'| {" | ".join(cells)} | {gain:+.1f} | {"yes" if clear else "no"} |')
    return '\n'.join(lines)


def prepare(work_dir: Path, *, fresh: bool) -> None:
    """Make the work folder, or clear it if an earlier cycle made it.

    Raises:
        StepFailedError: The folder is not ours.
    """
    marker = work_dir / MARKER
    if work_dir.exists() and any(work_dir.iterdir()) and not marker.exists():
        raise StepFailedError(
            f'{work_dir} was not made by this tool (it has no {MARKER}): choose another --work-dir.'
        )
    if fresh and work_dir.exists():
        shutil.rmtree(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    marker.touch()


def write_digits() -> None:
    heading('Digits')
    tasks = [task for task in ('captions', 'scene_classes') if not read_manifest(DATA / task)]
    if not tasks:
        print(f'done already: {DATA}')
        return
    tool = TOOLS / 'dataset_converters' / 'digits.py'
    command = [str(tool), str(DATA), '--task', *tasks]
    print('$', shlex.join(['python', os.path.relpath(tool), *command[1:]]), flush=True)
    if subprocess.run([sys.executable, *command]).returncode:
        raise StepFailedError('tools/dataset_converters/digits.py failed, see above.')


def main() -> int:
    args = parse_args()
    # Ends the runs too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not 1 <= args.seeds <= LISTS or args.jobs < 1:
        print(f'error: --seeds must be 1 to {LISTS}, --jobs 1 or more.', file=sys.stderr)
        return 2
    start = time.monotonic()
    try:
        prepare(args.work_dir, fresh=args.fresh)
        write_digits()
        cycle = Cycle(args.work_dir, args.seeds, args.tiny)
        cycle.run(args.jobs)
    except StepFailedError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nStopped. The same command goes on where it stopped.', file=sys.stderr)
        return 130
    results = cycle.results()
    table = report(results)
    write_json(args.work_dir / 'results.json', results)
    (args.work_dir / 'table.md').write_text(table + '\n', encoding='utf-8')
    minutes = (time.monotonic() - start) / 60
    print(f'\n=== Done in {minutes:.1f} min ===\n\n{table}\n\nwritten: {args.work_dir}/table.md')
    return 0


if __name__ == '__main__':
    sys.exit(main())
