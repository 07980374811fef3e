"""Writing checkpoints while training goes on."""

import threading
from collections.abc import Callable
from typing import Any

from evamm.checkpoints import write_checkpoint


class BackgroundWriter:
    """Writes one checkpoint at a time in a thread.

    Hashing and writing release Python's lock, so the loop is not held up. An error of a write is
    raised by the next call of any method.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._then: list[Callable[[], None]] = []

    def write(self, obj: Any, path: str) -> None:
        """Write ``obj``, which must not change any more; waits for the one before.

        Raises:
            CheckpointError: The write before this one failed.
        """
        self.wait()
        # Not a daemon: the interpreter does not end before the file is complete.
        self._thread = threading.Thread(target=self._run, args=(obj, path), daemon=False)
        self._thread.start()

    def _run(self, obj: Any, path: str) -> None:
        try:
            write_checkpoint(obj, path)
        except BaseException as error:
            self._error = error

    def when_written(self, action: Callable[[], None]) -> None:
        """Do something in this thread as soon as :meth:`wait` finds the file complete."""
        self._then.append(action)
        if self._thread is None:
            self.wait()

    def wait(self) -> None:
        """Wait until the file is complete.

        Raises:
            CheckpointError: It could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        then, self._then = self._then, []
        error, self._error = self._error, None
        if error is not None:
            raise error
        for action in then:
            action()
