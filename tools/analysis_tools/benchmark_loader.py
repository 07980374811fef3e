"""Time the data loader of a config alone: no model, no copies to a device.

    python tools/analysis_tools/benchmark_loader.py configs/eva02/eva02_tiny_p14_8xb16_in1k.py

First the transforms run one after the other in this process, so that their shares can be told
apart; then the loader runs with its workers. With --step-ms the loop waits that long for every
batch, as a training step would, and the share of time it waits for data is that of such a run.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evamm import compat

compat.install()
compat.require('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain')

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader, Dataset

from evamm.engine.runner import launch
from evamm.engine.runner.launch import UsageError, set_loader_defaults


@dataclass
class TransformTimes:
    """CPU milliseconds by transform, in the order of the pipeline, one entry per sample."""

    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    dropped: int = 0

    def table(self) -> str:
        sums = {name: sum(times) for name, times in self.times.items()}
        total = sum(sums.values()) or 1.0
        lines = [f'{"transform":32s} {"ms, median":>10s} {"share":>7s}']
        for name, times in self.times.items():
            share = 100 * sums[name] / total
            lines.append(f'{name:32s} {statistics.median(times):10.3f} {share:6.1f}%')
        samples = max(len(times) for times in self.times.values())
        lines.append(f'{"all":32s} {total / samples:10.3f}  ms per sample (mean)')
        if self.dropped:
            lines.append(f'{self.dropped} samples were dropped by a transform')
        return '\n'.join(lines)


@dataclass(frozen=True)
class LoaderTimes:
    """What one pass over the loader took.

    Attributes:
        first: Seconds until the first batch, start of the workers included.
        waits: Seconds waited for each later batch.
        seconds: All of it from the first batch on.
        samples: Number of samples after the first batch.
    """

    first: float
    waits: list[float]
    seconds: float
    samples: int

    def table(self, batch_size: int, step_ms: float) -> str:
        median, longest = statistics.median(self.waits), max(self.waits)
        lines = [
            f'first batch after             {self.first:.2f} s',
            f'batches after it              {len(self.waits)} of {batch_size}',
            f'images per second             {self.samples / self.seconds:.1f}',
            f'wait per batch                {1000 * median:.1f} ms (median), '
            f'{1000 * longest:.1f} ms (longest)',
        ]
        if step_ms:
            share = 100 * sum(self.waits) / self.seconds
            lines.append(f'data wait at {step_ms:g} ms per step  {share:.1f} % of the time')
        return '\n'.join(lines)


def innermost(dataset: Dataset) -> Dataset:
    """The dataset with a pipeline inside wrappers (ConcatDataset, RepeatDataset, ...)."""
    while not hasattr(getattr(dataset, 'pipeline', None), 'transforms'):
        if hasattr(dataset, 'datasets'):
            dataset = dataset.datasets[0]
        elif hasattr(dataset, 'dataset'):
            dataset = dataset.dataset
        else:
            raise UsageError(f'{type(dataset).__name__} has no pipeline of transforms to time.')
    return dataset


def time_transforms(dataset: Dataset, samples: int) -> TransformTimes:
    """Run the pipeline transform by transform on `samples` samples spread over the dataset.

    Each is run once before, so that no figure holds the reading of a cold disk.
    """
    dataset = innermost(dataset)
    steps = dataset.pipeline.transforms
    labels = [type(step).__name__ for step in steps]
    names = [
        f'{label} ({labels[: i + 1].count(label)})' if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]
    result = TransformTimes()
    count = min(samples, len(dataset))
    for number in range(count):
        index = number * len(dataset) // count
        dataset.pipeline(dataset.get_data_info(index))
        data: Any = dataset.get_data_info(index)
        for name, step in zip(names, steps):
            start = time.process_time()
            data = step(data)
            result.times[name].append(1000 * (time.process_time() - start))
            if data is None:
                result.dropped += 1
                break
    return result


def time_loader(loader: DataLoader, batches: int, step_ms: float) -> LoaderTimes:
    """Take `batches` batches after the first one; start over where the data set ends."""
    start = time.perf_counter()
    iterator = iter(loader)
    next(iterator)
    first = time.perf_counter() - start
    waits, samples = [], 0
    start = time.perf_counter()
    for _ in range(batches):
        asked = time.perf_counter()
        try:
            batch = next(iterator)
        except StopIteration:
            iterator = iter(loader)
            batch = next(iterator)
        waits.append(time.perf_counter() - asked)
        samples += len(batch['inputs']) if isinstance(batch, dict) else len(batch)
        time.sleep(step_ms / 1000)
    return LoaderTimes(first, waits, time.perf_counter() - start, samples)


def build_loader(
    cfg: Config, split: str, workers: int | None, batch_size: int | None
) -> DataLoader:
    """The loader as the training and testing tools build it."""
    key = f'{split}_dataloader'
    if cfg.get(key) is None:
        raise UsageError(f'{cfg.filename} has no {key}; choose another --split.')
    if workers is not None:
        cfg[key].num_workers = workers
    if batch_size is not None:
        cfg[key].batch_size = batch_size
    if cfg[key].get('num_workers', 0) == 0:
        cfg[key].pop('prefetch_factor', None)
    set_loader_defaults(cfg, (key,), pin_memory=False)
    set_multi_processing(**cfg.get('env_cfg', {}).get('mp_cfg', {}))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmengine')):
        try:
            return Runner.build_dataloader(cfg[key], seed=0)
        except FileNotFoundError as error:
            raise UsageError(f'the data of {key} cannot be read: {error}') from error


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--workers', type=int, metavar='N', help="instead of the config's number")
    parser.add_argument('--batch-size', type=int, metavar='N', help="instead of the config's")
    parser.add_argument('--batches', type=int, default=100, metavar='N', help='default: 100')
    parser.add_argument(
        '--samples', type=int, default=200, metavar='N', help='for the shares of the transforms'
    )
    parser.add_argument(
        '--step-ms', type=float, default=0.0, help='length of a training step to imitate'
    )
    launch.add_common_arguments(parser)
    args = parser.parse_args(argv)
    for name, least in (('batches', 1), ('samples', 1), ('workers', 0), ('batch_size', 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, found {value}')
    return args


def main() -> None:
    args = parse_args()
    cfg = launch.load_config(args.config, args)
    loader = build_loader(cfg, args.split, args.workers, args.batch_size)
    data = f'{len(loader.dataset)} samples, {len(loader)} batches of {loader.batch_size}'
    print(f'{args.split}: {data}, {loader.num_workers} workers\n')
    print(time_transforms(loader.dataset, args.samples).table(), end='\n\n')
    times = time_loader(loader, args.batches, args.step_ms)
    print(times.table(loader.batch_size, args.step_ms))


if __name__ == '__main__':
    sys.exit(launch.run_tool(main))
