"""Loading a checkpoint of any dialect into a model."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from .dialects import canonicalize, find_trunk_prefix
from .errors import CheckpointError, abbreviate, with_close_matches
from .fitting import fit_state_dict
from .reading import Checkpoint, read_checkpoint
from .report import LoadReport, not_finite, warn_about


def load_checkpoint(
    model: nn.Module,
    path: str | os.PathLike | Checkpoint,
    *,
    prefer_ema: bool = True,
    allow_partial: bool = False,
    mim_norm: str = 'to_fc_norm',
    allow_missing: Iterable[str] = (),
    complete: bool = False,
    dialect: str | None = None,
    sha256: str | None = None,
) -> LoadReport:
    """Loads an EVA checkpoint of any dialect into a model that contains the trunk.

    The trunk is found under whatever prefix the model has it. Everything is checked before the
    first tensor is written: after an error the model is as it was.

    Args:
        model: An ``EVAViT`` or anything around it.
        path: File, http(s) address, or a checkpoint that was read before.
        prefer_ema: Take the averaged weights of a file that has both kinds.
        allow_partial: See :func:`evamm.checkpoints.fit_state_dict`, as for the next three.
        mim_norm: 'to_fc_norm' or 'discard'.
        allow_missing: Patterns of tensors that may start fresh.
        complete: Every tensor of the model must come from the file.
        dialect: Code base that the file comes from; None finds out.
        sha256: Expected hash of the file.

    Returns:
        What was loaded, resized, dropped and left fresh.

    Raises:
        CheckpointError: The file cannot be read safely or does not fit.
    """
    if not isinstance(path, Checkpoint):
        path = read_checkpoint(path, prefer_ema=prefer_ema, sha256=sha256)
    target = {
        name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)
    }
    trunk = _trunk(model, target)
    try:
        canonical = canonicalize(path.state_dict, dialect)
        fitted, report = fit_state_dict(
            canonical.state_dict,
            {name: value.shape for name, value in target.items()},
            grid=getattr(trunk, 'pos_grid_size', None),
            rel_pos_rule=getattr(trunk, 'relative_position_resize', 'linear'),
            mim_norm=mim_norm,
            allow_missing=allow_missing,
            allow_partial=allow_partial,
            complete=complete,
        )
        report.path, report.source, report.meta = path.path, path.source, path.meta
        copy_into(target, fitted, report)
    except CheckpointError as error:
        raise CheckpointError(f'{path.path or "checkpoint"}: {error}') from error
    report.dialect = canonical.dialect
    report.dropped = canonical.dropped + report.dropped
    report.renamed += canonical.renamed
    return report


def check_options(options: Iterable[str], loader: Callable[..., LoadReport], where: str) -> None:
    """Refuses keywords of a config that a loader does not have.

    Args:
        options: Keywords, without the model and the file.
        loader: :func:`load_checkpoint` or :func:`load_text_checkpoint`.
        where: What the user wrote them into, such as ``'load_options'``.

    Raises:
        CheckpointError: Names the keyword and those that exist.
    """
    known = [
        name
        for name, parameter in inspect.signature(loader).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    unknown = [with_close_matches(name, known) for name in options if name not in known]
    if unknown:
        raise CheckpointError(
            f'{where}: {abbreviate(unknown)} is no option of loading; use {", ".join(known)}.'
        )


def copy_into(
    target: Mapping[str, Tensor], fitted: Mapping[str, Tensor], report: LoadReport
) -> None:
    """Copies checked tensors into a model's and notes it; the last step of every loading.

    Args:
        target: Tensors of the model by name.
        fitted: What to copy, of the same shapes.
        report: Gets the names of what was loaded and of what holds NaN or infinity.

    Raises:
        CheckpointError: A tensor is of another kind than the model's, or the model has no memory.
    """
    _check_types(fitted, target)
    report.loaded = list(fitted)
    report.not_finite = not_finite(fitted)
    warn_about(report)
    with torch.no_grad():
        for name, value in fitted.items():
            target[name].copy_(_as_target(value, target[name]))


def _as_target(value: Tensor, target: Tensor) -> Tensor:
    """The part of a tensor that a sharded model keeps in this process."""
    if not isinstance(target, DTensor):
        return value
    return distribute_tensor(
        value.to(target.device), target.device_mesh, target.placements, src_data_rank=None
    )


def _trunk(model: nn.Module, target: dict[str, Tensor]) -> nn.Module | None:
    """The trunk inside a model."""
    prefix = find_trunk_prefix(target)
    return None if prefix is None else model.get_submodule(prefix.rstrip('.'))


def _check_types(fitted: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    on_meta = [name for name in fitted if target[name].is_meta]
    if on_meta:
        raise CheckpointError(
            f'{abbreviate(on_meta, 2)} of the model lies on the meta device and has no memory; '
            "call model.to_empty(device='cpu') first."
        )
    for name, value in fitted.items():
        kinds = [(t.is_floating_point(), t.is_complex()) for t in (value, target[name])]
        if kinds[0] != kinds[1]:
            raise CheckpointError(
                f'{name} is {value.dtype} in the file and {target[name].dtype} in the model; the '
                'file is not a checkpoint of this model.'
            )
