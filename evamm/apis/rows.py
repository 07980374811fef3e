"""One row of a tensor per image: images in, encoded in batches, rows out in the same order."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from evamm.apis.images import ImageReadError, ImageSource
from evamm.apis.loader import load_batches


def encode_in_batches(
    sources: Sequence[ImageSource],
    prepare: Callable[[ImageSource], dict],
    encode: Callable[[list[Tensor]], tuple[Tensor, ...]],
    batch_size: int,
    *,
    on_error: str = 'raise',
    progress: bool | None = None,
    description: str = 'Features',
) -> tuple[tuple[Tensor, ...], dict[int, ImageReadError]]:
    """Encodes n images.

    Args:
        sources: The images.
        prepare: Decodes one image and runs the test pipeline, see `load_batches`.
        encode: Turns the `inputs` of b images into tensors [b, ...]; called with an empty list
            where there is no image, it gives the shapes.
        batch_size: Images per pass.
        on_error: 'raise' stops at the first unreadable image; 'report' fills its rows with NaN.
        progress: Show a progress bar on stderr; None: for more than one batch.
        description: Text before the bar.

    Returns:
        The tensors, [n, ...] on the CPU, and the errors by position.

    Raises:
        ImageReadError: An image, or with 'report' every image, cannot be read.
    """
    rows: list[Tensor] | None = None
    failed: dict[int, ImageReadError] = {}
    for indices, samples, errors in load_batches(
        sources, prepare, batch_size, on_error=on_error, progress=progress, description=description
    ):
        failed.update(errors)
        if not samples:
            continue
        parts = encode([sample['inputs'] for sample in samples])
        if rows is None:
            rows = [
                torch.full((len(sources), *part.shape[1:]), torch.nan, dtype=part.dtype)
                for part in parts
            ]
        for row, part in zip(rows, parts, strict=True):
            row[indices] = part.cpu()
    if failed and rows is None:
        raise next(iter(failed.values()))
    if failed:
        names = ', '.join(sources[index].name for index in list(failed)[:3])
        warnings.warn(
            f'{len(failed)} of {len(sources)} images cannot be read; their rows are NaN: {names}'
            f'{", ..." if len(failed) > 3 else ""}',
            stacklevel=3,
        )
    if rows is None:
        rows = [part.cpu() for part in encode([])]
    return tuple(rows), failed
