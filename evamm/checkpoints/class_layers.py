"""Layers with one output per class, which cannot be used for another number of classes."""

import re
import warnings
from collections.abc import Mapping

from torch import Tensor

from .report import LoadReport

# (layer, outputs that are no classes)
_LAYERS = (
    (re.compile(r'^(head)\.(weight|bias)$'), 0),
    (re.compile(r'^(roi_head\.bbox_head\.(?:\d+\.)?fc_cls)\.(weight|bias)$'), 1),
    (re.compile(r'^(roi_head\.mask_head\.(?:\d+\.)?conv_logits)\.(weight|bias)$'), 0),
)

Mismatches = dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


def drop_other_classes(
    source: dict[str, Tensor], wrong: Mismatches, report: LoadReport, stacklevel: int
) -> None:
    """Leaves out class layers with another number of classes; the user is told in one sentence.

    A classifier's head, and in detectors the class scores of every stage and the masks of the
    classes. The official code does the same without a word.

    Args:
        source: Canonical tensors; loses the layers.
        wrong: (stored shape, shape in the model) of tensors that do not fit; loses theirs.
        report: Gets what was dropped.
        stacklevel: Of the warning.
    """
    layers: dict[str, tuple[int, int]] = {}
    for name, (stored, wanted) in wrong.items():
        for pattern, others in _LAYERS:
            match = pattern.match(name)
            if match and stored and wanted and stored[1:] == wanted[1:]:
                layers[match[1]] = (stored[0] - others, wanted[0] - others)
    if not layers:
        return
    for layer, (stored, wanted) in layers.items():
        unit = 'outputs' if layer == 'head' else 'classes'
        for name in (f'{layer}.weight', f'{layer}.bias'):
            wrong.pop(name, None)
            if source.pop(name, None) is not None:
                why = f'it has {stored} {unit}, the model {wanted}'
                report.dropped.append((name, 'class-count', why))
    warnings.warn(_sentence(layers), stacklevel=stacklevel + 1)


def _sentence(layers: Mapping[str, tuple[int, int]]) -> str:
    stored, wanted = next(iter(layers.values()))
    if 'head' in layers:
        return (
            f'The head of the checkpoint is left out because it has {stored} outputs, the model '
            f'{wanted}; the head of the model starts fresh.'
        )
    kinds = sorted({re.sub(r'\.\d+\.', '.*.', layer) for layer in layers})
    return (
        f'The class layers of the checkpoint ({", ".join(kinds)}) are left out because it detects '
        f'{stored} classes, the model {wanted}; those of the model start fresh.'
    )
