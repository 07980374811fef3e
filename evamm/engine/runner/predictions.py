"""Predictions of a test run as a file that needs no unpickling."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner

from ..errors import ConfigError
from .training_state import bare_model

SUFFIXES = ('.json', '.npz')
_KEPT = ('img_path', 'img_id', 'sample_idx', 'gt_label')


def write_file(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: object) -> object:
    """Tensors and arrays as lists, rounded to six digits; everything else as it is."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy() if value.is_floating_point() else value.cpu()
        return to_json(np.asarray(value))
    if isinstance(value, np.ndarray):
        return (np.round(value.astype(float), 6) if value.dtype.kind == 'f' else value).tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


class PredictionWriter(BaseMetric):
    """Collects the predictions of a test run and writes them at its end.

    ``.json``: a list with one object per image; masks are run-length codes. ``.npz``: one array per
    entry, [N] or [N, C], for predictions of one size such as class scores.

    Args:
        path: Target file; the suffix chooses the format.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(collect_device='cpu')
        self.path = Path(path)

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Keep the predictions, the label and the identity of every image of a batch."""
        for sample in data_samples:
            kept = {k: v for k, v in sample.items() if k in _KEPT or k.startswith('pred')}
            self.results.append(_to_cpu(_with_coded_masks(kept)))

    def compute_metrics(self, results: list[dict]) -> dict:
        """Write the file; adds no metric."""
        if self.path.suffix == '.npz':
            arrays = {key: _stack(key, [r[key] for r in results]) for key in results[0]}
            self._write_npz(arrays)
        else:
            write_file(self.path, json.dumps(to_json(results)).encode())
        return {}

    def _write_npz(self, arrays: dict[str, np.ndarray]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f'.{self.path.stem}.{os.getpid()}.npz')
        try:
            np.savez_compressed(temporary, **arrays)
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)


def ask_for_coded_masks(runner: Runner, parts: Sequence[str]) -> None:
    """Have evamm's detectors give masks as run-length codes where nothing needs their pixels.

    The bitmaps of an image of 12 megapixels take 1.2 GB for 100 objects, and with Soft-NMS there
    are thousands. Pictures need them, and so may metrics that are not evamm's. A `mask_format` in
    `test_cfg` is left as it is.

    Args:
        runner: A runner with its loops, that has not begun.
        parts: Its loops, of ``'val'`` and ``'test'``.
    """
    head = getattr(bare_model(runner), 'roi_head', None)
    settings = getattr(head, 'test_cfg', None)
    takes_format = getattr(head, 'takes_mask_format', False)
    if not takes_format or settings is None or 'mask_format' in settings:
        return
    loops = [getattr(runner, f'{part}_loop') for part in parts]
    metrics = [metric for loop in loops if loop is not None for metric in loop.evaluator.metrics]
    draws = any(getattr(hook, 'draw', False) for hook in runner.hooks)
    if not draws and all(type(metric).__module__.startswith('evamm.') for metric in metrics):
        # The config of the run is not touched: other programs that read it expect bitmaps.
        head.test_cfg = ConfigDict(settings, mask_format='rle')


def _with_coded_masks(sample: dict) -> dict:
    """Masks of a detector as COCO's run-length codes, a thousandth of the numbers."""
    found = sample.get('pred_instances')
    if not isinstance(found, Mapping) or not isinstance(found.get('masks'), torch.Tensor):
        return sample
    return {**sample, 'pred_instances': {**found, 'masks': code_masks(found['masks'].cpu())}}


def code_masks(masks: torch.Tensor | np.ndarray) -> list[dict[str, Any]]:
    """Masks as COCO run-length codes that JSON can hold.

    Args:
        masks: bool [N, H, W], on the CPU.
    """
    from pycocotools import mask as rle

    codes = []
    for mask in np.asarray(masks):
        code = rle.encode(np.asfortranarray(mask, np.uint8))
        codes.append({'size': list(code['size']), 'counts': code['counts'].decode()})
    return codes


def _to_cpu(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {key: _to_cpu(item) for key, item in value.items()}
    return value


def _stack(key: str, values: list) -> np.ndarray:
    """[N, ...] array of one entry."""
    try:
        array = np.stack([np.asarray(to_json(value)) for value in values])
    except ValueError:
        array = np.asarray([], dtype=object)
    if array.dtype.kind not in 'biufU':
        raise ConfigError(
            f'--out: {key} differs in size between images, which .npz cannot hold; write .json.'
        )
    # A label is a tensor with one element.
    return (
        array[:, 0] if array.ndim == 2 and key.endswith('label') and array.shape[1] == 1 else array
    )
