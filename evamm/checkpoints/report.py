"""What happened to every tensor when a checkpoint was loaded."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .errors import abbreviate


@dataclass
class LoadReport:
    """Result of fitting a checkpoint to a model.

    Args:
        path: File; empty for a state dict in memory.
        source: Entries that led to the state dict in the file, such as 'model_ema'.
        dialect: Code base that the file comes from.
        loaded: Names of the model's tensors that were filled.
        resized: (name in the model, stored shape, shape in the model, rule).
        dropped: (name in the file, rule, why).
        missing: (name in the model, rule, why); these keep their initial values.
        renamed: Number of tensors whose name was translated.
        unexplained: What ``allow_partial=True`` let pass, one line each.
        not_finite: Names of tensors with NaN or infinity in them.
        meta: The file's own ``meta`` entry (class names, config, epoch) where it has one.
    """

    path: str = ''
    source: str = ''
    dialect: str = 'evamm'
    loaded: list[str] = field(default_factory=list)
    resized: list[tuple[str, tuple[int, ...], tuple[int, ...], str]] = field(default_factory=list)
    dropped: list[tuple[str, str, str]] = field(default_factory=list)
    missing: list[tuple[str, str, str]] = field(default_factory=list)
    renamed: int = 0
    unexplained: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        origin = self.path or 'state dict'
        entry = f', entry {self.source}' if self.source else ''
        lines = [
            f'{origin} ({self.dialect}{entry}): {len(self.loaded)} tensors loaded, '
            f'{self.renamed} renamed'
        ]
        for name, stored, wanted, rule in self.resized:
            lines.append(f'  resized   {name}  {_shape(stored)} -> {_shape(wanted)}  [{rule}]')
        lines += _by_rule('dropped', self.dropped)
        lines += _by_rule('missing', self.missing)
        lines += [f'  unexplained  {text}' for text in self.unexplained]
        if self.not_finite:
            lines.append(f'  NOT FINITE  {abbreviate(self.not_finite, 3)}')
        return '\n'.join(lines)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    found = []
    for name, value in tensors.items():
        if value.is_floating_point():
            value = value.float() if value.itemsize == 1 else value  # float8 lacks the operator
            if not value.isfinite().all():
                found.append(name)
    return found


def warn_about(report: LoadReport) -> None:
    """Warns about weights that are no numbers; a model with them computes nothing of use."""
    if report.not_finite:
        warnings.warn(
            f'{report.path or "checkpoint"}: {len(report.not_finite)} tensors hold NaN or '
            f'infinity: {abbreviate(report.not_finite, 3)}; the run that wrote it had broken '
            'down, so take an older file.',
            stacklevel=4,
        )


def _shape(shape: Iterable[int]) -> str:
    return 'x'.join(map(str, shape))


def _by_rule(title: str, entries: list[tuple[str, str, str]]) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for name, rule, why in entries:
        groups.setdefault((rule, why), []).append(name)
    return [
        f'  {title:<9} {abbreviate(names, 3)}  [{rule}: {why}]'
        for (rule, why), names in groups.items()
    ]
