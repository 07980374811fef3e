"""Kill a training run again and again and compare its end with an undisturbed one.

Example:
    python -m benchmarks.reliability.kill_storm --kills 100
"""

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from . import tiny_run

COMPARED = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers', 'rng', 'train_loop')
# Every fork has them: a start then takes a fraction of a second.
PRELOADED = (
    'evamm.models',
    'evamm.datasets',
    'evamm.engine',
    'evamm.evaluation',
    'tools.train',
    'mmpretrain.models',
    'mmpretrain.datasets',
    'mmpretrain.evaluation',
    'matplotlib.pyplot',
    'mmpretrain.visualization',
    'mmpretrain.engine',
    'yapf.yapflib.yapf_api',
)
SETTINGS = (
    {'workers': 0, 'async_save': False},
    {'workers': 2, 'async_save': False},
    {'workers': 0, 'async_save': True},
)


@dataclass
class Report:
    """What a storm did and found."""

    kills: int = 0
    inside_saving: int = 0
    runs: int = 0
    starts: int = 0
    different_ends: int = 0
    failed_starts: int = 0
    orphans_after_start: int = 0
    most_iterations_lost: int = 0
    lost: list[int] = field(default_factory=list)
    seconds: float = 0.0


def start(config: Path) -> int:
    """Run ``tools/train.py CONFIG --resume`` in a fork, which has all imports done already."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        log = os.open(config.with_suffix('.log'), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ['tools/train.py', str(config), '--resume']
        from evamm.engine.runner import launch
        from tools.train import main

        code = launch.run_tool(main)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def ended(pid: int) -> int | None:
    """Exit status of a child; None while it runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def temporary_files(folder: Path) -> list[Path]:
    return list(folder.glob('.*.evamm-tmp'))


def kill_at_random(pid: int, work_dir: Path, inside_saving: bool, rng: random.Random) -> bool:
    """Kill a run; False if it ended before."""
    began = time.monotonic()
    wait = rng.uniform(0.0, 2.5)
    saves = rng.randint(1, 4)
    # Every save makes one temporary file under a name of its own.
    seen: set[str] = set()
    while True:
        if ended(pid) is not None:
            return False
        if not inside_saving:
            if time.monotonic() - began > wait:
                break
        else:
            seen |= {path.name for path in temporary_files(work_dir)}
            if len(seen) >= saves:
                time.sleep(rng.uniform(0.0, 0.002))
                break
        time.sleep(0.0005)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def same(a: object, b: object) -> bool:
    """Bitwise equality of nested states."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def same_end(one: Path, two: Path) -> bool:
    """Compare the last checkpoints of two runs: all states and everything logged but times."""
    states = []
    for work_dir in (one, two):
        newest = max(work_dir.glob('iter_*.pth'), key=lambda path: int(path.stem[5:]))
        state = torch.load(newest, weights_only=True)
        logged = {
            key: value
            for key, value in state['message_hub']['log_scalars'].items()
            if not key.endswith('time') and not key.startswith('val/')
        }
        states.append({**{part: state.get(part) for part in COMPARED}, 'logged': logged})
    return same(*states)


def storm(folder: Path, kills: int, *, epochs: int, interval: int, seed: int) -> Report:
    """Kill runs ``kills`` times in all; every run is brought to its end and compared."""
    rng = random.Random(seed)
    report = Report()
    began = time.monotonic()
    whole: dict[int, Path] = {}
    while report.kills < kills:
        number = report.runs
        settings = SETTINGS[number % len(SETTINGS)]
        if not whole:
            config = tiny_run.write_config(folder, 'whole', epochs=epochs, interval=interval)
            pid = start(config)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
                raise RuntimeError(config.with_suffix('.log').read_text()[-3000:])
            whole[0] = folder / 'whole'
        name = f'run{number}'
        config = tiny_run.write_config(folder, name, epochs=epochs, interval=interval, **settings)
        work_dir = folder / name
        report.runs += 1
        while True:
            report.starts += 1
            pid = start(config)
            kill = report.kills < kills
            if kill and kill_at_random(pid, work_dir, report.kills % 2 == 0, rng):
                report.kills += 1
                report.inside_saving += bool(temporary_files(work_dir))
                saved = max((int(p.stem[5:]) for p in work_dir.glob('iter_*.pth')), default=0)
                report.lost.append(max(0, tiny_run.progress(folder, name) - saved))
                continue
            try:
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            except ChildProcessError:  # kill_at_random has seen its end
                code = 0
            if code:
                report.failed_starts += 1
                raise RuntimeError(config.with_suffix('.log').read_text()[-3000:])
            break
        report.orphans_after_start += len(temporary_files(work_dir))
        report.different_ends += not same_end(whole[0], work_dir)
        shutil.rmtree(work_dir)
    report.most_iterations_lost = max(report.lost, default=0)
    report.seconds = time.monotonic() - began
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--epochs', type=int, default=12, help='6 iterations each')
    parser.add_argument('--interval', type=int, default=2, help='iterations between checkpoints')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', type=Path, help='write the report there')
    args = parser.parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    torch.set_num_threads(1)
    for module in PRELOADED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        report = storm(
            Path(folder), args.kills, epochs=args.epochs, interval=args.interval, seed=args.seed
        )
    values = asdict(report)
    del values['lost']
    for name, value in values.items():
        print(f'{name.replace("_", " "):24} {value}')
    if args.json:
        args.json.write_text(json.dumps(values, indent=2))
    sys.exit(bool(report.different_ends or report.orphans_after_start))


if __name__ == '__main__':
    main()
