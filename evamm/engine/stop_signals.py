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

    def start_sharing(self, flag: torch.Tensor) -> 'SharedFlag':
        """Begin to let all processes know what one has received, and the largest ``flag`` of all.

        Called by all processes at the same place. One exchange; nothing waits for the device before
        :meth:`SharedFlag.wait`.

        Args:
            flag: A number of at least 0 on any device.
        """
        if get_world_size() == 1:
            return SharedFlag(self, flag, None)
        on_cuda = torch.distributed.get_backend() == 'nccl'
        values = torch.zeros(2, device='cuda' if on_cuda else 'cpu')
        values[0] = self.received or 0
        values[1] = flag
        torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
        return SharedFlag(self, values[1].to(flag.device), values)

    def share(self) -> None:
        """Let all processes know what one has received; all call it at the same place."""
        if get_world_size() == 1:
            self.shared = self.received
        else:
            self.start_sharing(torch.zeros(())).wait()


class SharedFlag:
    """The largest of a number in all processes, on its way.

    Args:
        signals: Where the number of a received signal is to be noted.
        flag: The largest, on the device of the number.
        values: Signal and largest number on the device of the exchange; None for one process.
    """

    def __init__(
        self, signals: StopSignals, flag: torch.Tensor, values: torch.Tensor | None
    ) -> None:
        self.flag = flag
        self._signals = signals
        self._values = flag.reshape(1) if values is None else values
        self._event = None
        if self._values.is_cuda:
            # Reading a tensor would wait for everything that is queued until then; this copy is
            # done when the numbers are.
            host = torch.empty(self._values.shape, dtype=self._values.dtype, pin_memory=True)
            self._values = host.copy_(self._values, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def wait(self) -> float:
        """The largest number; waits for what the device was given before the exchange only."""
        if self._event is not None:
            self._event.synchronize()
        *number, largest = self._values.tolist()
        self._signals.shared = (int(number[0]) or None) if number else self._signals.received
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
