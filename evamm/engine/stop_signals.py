"""Ending a run at the next safe place when the system asks for it."""

import signal
import threading
from types import FrameType, TracebackType

import torch
from mmengine.dist import get_world_size

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A signal for the whole process group must not take the workers away before the checkpoint is
# written; a worker that is really to go, goes after this many seconds.
WORKER_GRACE_SECONDS = 8


class ValidationInterrupted(Exception):
    """Leaves a validation whose result nobody waits for any more."""


class StopSignals:
    """Notes SIGTERM and the first SIGINT instead of dying from them; a context manager.

    A second SIGINT is a ``KeyboardInterrupt`` as usual. Outside the main thread Python does not
    allow this, and signals do what they always do.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.shared: int | None = None
        self._previous = {}

    def __enter__(self) -> 'StopSignals':
        self.received = self.shared = None
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            # None: a handler that Python did not install and cannot put back.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def share(self, flag: torch.Tensor | None = None) -> float:
        """Let all processes know what one has received, and the largest ``flag`` of all.

        Called by all processes at the same place. One exchange and one wait for the device.

        Args:
            flag: A number on any device; None stands for 0.

        Returns:
            The largest flag.
        """
        if get_world_size() == 1:
            self.shared = self.received
            return 0.0 if flag is None else flag.item()
        on_cuda = torch.distributed.get_backend() == 'nccl'
        values = torch.zeros(2, device='cuda' if on_cuda else 'cpu')
        values[0] = self.received or 0
        if flag is not None:
            values[1] = flag
        torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
        number, largest = values.tolist()
        self.shared = int(number) or None
        return largest


class WorkerInit:
    """Lets loader workers live on for a moment when their process group is signalled.

    Args:
        inner: The loader's own initialisation.
    """

    def __init__(self, inner: object = None) -> None:
        self.inner = inner

    def __call__(self, worker_id: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_GRACE_SECONDS))
        if self.inner is not None:
            self.inner(worker_id)
