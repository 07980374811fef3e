"""Decodes and prepares images in threads, ahead of the model, in batches."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from rich.console import Console
from rich.progress import track

from evamm.apis.images import ImageReadError, ImageSource

ON_ERROR = ('raise', 'report')
Batch = tuple[list[int], list[dict], dict[int, ImageReadError]]


def load_batches(
    sources: Sequence[ImageSource],
    prepare: Callable[[ImageSource], dict],
    batch_size: int,
    *,
    on_error: str = 'raise',
    progress: bool | None = None,
    description: str = 'Inference',
) -> Iterable[Batch]:
    """Prepares `sources` in order. PIL and OpenCV release the GIL, so threads are enough.

    Args:
        sources: The images.
        prepare: Decodes one image and runs the test pipeline.
        batch_size: Images per batch.
        on_error: 'raise' stops at the first unreadable image; 'report' goes on without it.
        progress: Show a progress bar on stderr; None: for more than one batch.
        description: Text before the bar.

    Returns:
        For each batch: the positions of the prepared images in `sources`, what `prepare` made of
        them, and the errors by position (empty for 'raise').
    """
    if batch_size < 1:
        raise ValueError(f'batch_size must be at least 1, found {batch_size}.')
    if on_error not in ON_ERROR:
        raise ValueError(f"on_error must be one of {ON_ERROR}, found '{on_error}'.")
    batches = _iter_batches(sources, prepare, batch_size, on_error)
    count = -(-len(sources) // batch_size)
    if progress or (progress is None and count > 1):
        return track(batches, description, total=count, console=Console(stderr=True))
    return batches


def _iter_batches(
    sources: Sequence[ImageSource],
    prepare: Callable[[ImageSource], dict],
    batch_size: int,
    on_error: str,
) -> Iterator[Batch]:
    workers = min(8, os.cpu_count() or 1)
    ahead = max(2 * batch_size, workers)
    with ThreadPoolExecutor(workers, thread_name_prefix='evamm-images') as pool:
        waiting: deque[Future] = deque()
        try:
            submitted = 0
            for start in range(0, len(sources), batch_size):
                stop = min(start + batch_size, len(sources))
                while submitted < min(stop + ahead, len(sources)):
                    waiting.append(pool.submit(prepare, sources[submitted]))
                    submitted += 1
                indices, samples, errors = [], [], {}
                for index in range(start, stop):
                    try:
                        samples.append(waiting.popleft().result())
                        indices.append(index)
                    except ImageReadError as error:
                        if on_error == 'raise':
                            raise
                        errors[index] = error
                yield indices, samples, errors
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
