"""Runs of tools that follow each other: several at a time, and none twice."""

import json
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


class StepFailedError(RuntimeError):
    """A tool ended with an error."""


@dataclass(frozen=True)
class Step:
    """One run of a tool.

    Args:
        folder: What it writes; also its name.
        tool: Path of the tool.
        arguments: Its command line.
        needs: Files of earlier steps; the step is done again when they change.
        resumes: Whether an interrupted run goes on where it was.
    """

    folder: Path
    tool: Path
    arguments: tuple[str, ...]
    needs: tuple[Path, ...] = ()
    resumes: bool = False

    @property
    def command(self) -> str:
        return shlex.join(['python', os.path.relpath(self.tool), *self.arguments])

    @property
    def log(self) -> Path:
        return self.folder / 'output.txt'

    def _state(self) -> dict:
        needs = {str(path): path.stat().st_mtime_ns for path in self.needs}
        return {'command': self.command, 'needs': needs}

    def _read(self, name: str) -> dict:
        try:
            return json.loads((self.folder / name).read_text(encoding='utf-8'))
        except (FileNotFoundError, ValueError):
            return {}

    def is_done(self) -> bool:
        """Whether it has run to its end, with this command and these files."""
        found = self._read('done.json')
        return found.pop('seconds', None) is not None and found == self._state()

    @property
    def seconds(self) -> float:
        return self._read('done.json')['seconds']

    def begin(self) -> None:
        """Makes the folder; what another command left in it is deleted."""
        kept = self.resumes and self._read('begun.json') == self._state()
        if self.folder.exists() and not kept:
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / 'done.json').unlink(missing_ok=True)
        write_json(self.folder / 'begun.json', self._state())

    def finish(self, seconds: float) -> None:
        write_json(self.folder / 'done.json', {**self._state(), 'seconds': seconds})

    def records(self) -> Iterator[dict]:
        """What a training logged, in order."""
        for path in sorted(self.folder.glob('*/vis_data/scalars.json')):
            for line in path.read_text(encoding='utf-8').splitlines():
                yield json.loads(line)

    def series(self, key: str) -> list[float]:
        return [record[key] for record in self.records() if key in record]


def write_json(path: Path, content: object) -> None:
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_text(json.dumps(content, indent=1), encoding='utf-8')
    os.replace(temporary, path)


def run_tool(step: Step, threads: int) -> None:
    """In a process of its own: the tool with its output in a file."""
    log = step.log.open('a', buffering=1, encoding='utf-8')
    for descriptor in (1, 2):
        os.dup2(log.fileno(), descriptor)
    sys.stdout = sys.stderr = log
    torch.set_num_threads(threads)
    sys.argv = [str(step.tool), *step.arguments]
    runpy.run_path(sys.argv[0], run_name='__main__')


def progress(step: Step) -> str:
    """How far a step is, from the end of its output."""
    with step.log.open('rb') as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
        lines = file.read().decode(errors='replace').splitlines()
    for line in reversed(lines):
        found = re.search(r'\(train\) +((?:\[ *\S+\])+).*? eta: (\S+)', line)
        if found:
            return f'{found[1]} {found[2]} left'
        if 'crops of this process' in line:
            return line.split(',')[0]
    return 'begins'


class Runs:
    """Runs steps, several at a time, and shows how far they are.

    Processes are forked from this one, which has imported everything: a run begins at once.

    Args:
        total: Number of steps of all calls.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.context = multiprocessing.get_context('fork')
        self.start = time.monotonic()

    def __call__(self, steps: Sequence[Step], jobs: int = 1) -> None:
        cores = len(os.sched_getaffinity(0))
        threads = max(1, cores // min(jobs, len(steps)))
        waiting, running = [], {}
        for step in steps:
            if step.is_done():
                self._say(step, 'done already')
            else:
                waiting.append(step)
        shown = time.monotonic()
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    step = waiting.pop(0)
                    step.begin()
                    step.log.touch()
                    print(f'\n$ {step.command}', flush=True)
                    process = self.context.Process(target=run_tool, args=(step, threads))
                    process.start()
                    running[step] = (process, time.monotonic())
                time.sleep(0.2)
                self._collect(running)
                if running and time.monotonic() - shown > 10:
                    shown = time.monotonic()
                    state = '; '.join(f'{step.folder.name} {progress(step)}' for step in running)
                    print(f'    [{self.done}/{self.total}] {self._clock()}  {state}', flush=True)
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.join()

    def _collect(self, running: dict) -> None:
        for step, (process, begun) in list(running.items()):
            if process.is_alive():
                continue
            del running[step]
            if process.exitcode:
                tail = step.log.read_text(encoding='utf-8', errors='replace')[-2000:]
                raise StepFailedError(
                    f'{tail}\n{step.tool.name} failed with exit status {process.exitcode}; all '
                    f'of its output is in {step.log}.'
                )
            seconds = time.monotonic() - begun
            step.finish(seconds)
            self._say(step, f'done in {seconds:.0f} s')

    def _say(self, step: Step, text: str) -> None:
        self.done += 1
        print(f'[{self.done}/{self.total}] {self._clock()}  {step.folder}: {text}', flush=True)

    def _clock(self) -> str:
        return '{}:{:02}'.format(*divmod(round(time.monotonic() - self.start), 60))
