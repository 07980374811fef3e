"""Fair timing on a machine that others use too."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


def interleave(
    jobs: dict[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, list[float]]:
    """Runs every job once per round, the order rotating, so that load hits all alike.

    Args:
        jobs: what to time, by name; each is run once before to warm up.
        repeats: number of rounds.
        device: 'cpu' counts the CPU time of this process (waiting for others is not counted),
            'cuda' the time between two events on the stream.

    Returns:
        Seconds per round and job.
    """
    clock = _cuda_seconds if device == 'cuda' else _cpu_seconds
    names = list(jobs)
    for name in names:
        clock(jobs[name])
    seconds = {name: [] for name in names}
    for turn in range(repeats):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            seconds[name].append(clock(jobs[name]))
    return seconds


def _cpu_seconds(job: Callable[[], object]) -> float:
    start = time.process_time()
    job()
    return time.process_time() - start


def _cuda_seconds(job: Callable[[], object]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    job()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / 1000


def peak_memory(job: Callable[[], object], device: str) -> int:
    """Bytes that ``job`` holds at most, beyond what was held before it.

    On a CPU every allocation and release of PyTorch is added up in order (tensors; not the private
    workspaces of matrix libraries). The job runs once before, so that lasting state exists.
    """
    job()
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        job()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        job()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == '[memory]']
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@dataclass(frozen=True)
class Ratio:
    """Time of a peer over ours, round by round: median and quartiles. Above 1 we are faster."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, theirs: list[float], ours: list[float]) -> 'Ratio':
        ratios = sorted(a / b for a, b in zip(theirs, ours, strict=True))
        if len(ratios) == 1:
            return cls(ratios[0], ratios[0], ratios[0])
        low, median, high = statistics.quantiles(ratios, n=4, method='inclusive')
        return cls(median, low, high)

    def scaled(self, factor: float) -> 'Ratio':
        return Ratio(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f'{self.median:.2f} ({self.low:.2f}-{self.high:.2f})'
