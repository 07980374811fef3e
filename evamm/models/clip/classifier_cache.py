"""Zero-shot classifiers on disk, under what they were made from."""

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from evamm.checkpoints import CheckpointError, read_object, write_checkpoint
from evamm.checkpoints.download import cache_folder

# Another way to compute the features must not find the old ones.
_VERSION = 'evamm zero-shot classifier 1'
MAX_FILES = 256


def classifier_key(text: nn.Module, prompts: Iterable[str], num_templates: int) -> str | None:
    """A name for a classifier: a hash of the text tower and of every prompt.

    Args:
        text: The text tower; its weights, buffers, precision and structure count.
        prompts: All sentences, in order.
        num_templates: Sentences per class.

    Returns:
        64 hexadecimal digits; None for a tower whose weights are spread over processes.
    """
    digest = hashlib.sha256(_VERSION.encode())
    for name, value in sorted(text.state_dict().items()):
        if isinstance(value, DTensor):
            return None
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
        kind = value.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    # The number of heads is in no tensor, but in `arch`.
    digest.update(f'{getattr(text, "arch", None)} {autocast} {num_templates}'.encode())
    for prompt in prompts:
        digest.update(prompt.encode() + b'\0')
    return digest.hexdigest()


def default_folder() -> Path:
    """``zero_shot`` beside the downloaded checkpoints; ``EVAMM_HOME`` moves both."""
    return cache_folder() / 'zero_shot'


def load_classifier(folder: Path, key: str, shape: tuple[int, int]) -> Tensor | None:
    """The classifier of `key`, float32 [C, E]; None if there is none that can be used."""
    path = folder / f'{key}.safetensors'
    if not path.is_file():
        return None
    try:
        weights = read_object(path)['state_dict']['weights']
    except (CheckpointError, KeyError, TypeError) as error:
        print_log(f'{path} is built anew: {error}', 'current', logging.WARNING)
        return None
    if tuple(weights.shape) != shape or weights.dtype != torch.float32:
        print_log(f'{path} is built anew: it holds another classifier.', 'current', logging.WARNING)
        return None
    os.utime(path)  # used now: among the last to be removed
    return weights


def save_classifier(folder: Path, key: str, weights: Tensor) -> None:
    """Writes a classifier [C, E], completely or not at all; a full disk stops nobody."""
    path = folder / f'{key}.safetensors'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint({'weights': weights.cpu().contiguous()}, path)
        _remove_oldest(folder)
    except (CheckpointError, OSError) as error:
        print_log(f'The classifier is not kept: {error}', 'current', logging.WARNING)


def _remove_oldest(folder: Path) -> None:
    files = sorted(folder.glob('*.safetensors'), key=lambda file: file.stat().st_mtime)
    for file in files[:-MAX_FILES]:
        file.unlink(missing_ok=True)
