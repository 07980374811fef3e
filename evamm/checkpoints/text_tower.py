"""Loading the text tower of a CLIP file into a text tower alone."""

import os
import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from .dialects import detect_dialect
from .errors import CheckpointError, abbreviate, with_close_matches
from .fitting import text_size
from .loading import copy_into
from .reading import Checkpoint, read_checkpoint
from .report import LoadReport
from .wrappers import strip_wrapper_segments

_TOWER = re.compile(
    r'(token_embedding\.weight|positional_embedding|transformer\.resblocks\.\d+\..+|'
    r'ln_final\.(weight|bias)|text_projection)$'
)
_SIZES = ('input_resolution', 'context_length', 'vocab_size')


def load_text_checkpoint(
    module: nn.Module,
    path: str | os.PathLike | Checkpoint,
    *,
    projection: bool = False,
    prefer_ema: bool = True,
    sha256: str | None = None,
) -> LoadReport:
    """Fills a CLIP text tower from a file that holds one.

    OpenAI's CLIP files (TorchScript archives too; their code is never run), OpenCLIP's, EVA-CLIP's
    and evamm's are read; the tower is found at the top level or behind a prefix such as ``text.``.
    Everything is checked before the first tensor is written.

    Args:
        module: Text tower with the names of EVA-CLIP's (``token_embedding.weight``, ...).
        path: File, http(s) address, or a checkpoint that was read before.
        projection: Take ``text_projection`` too. EVA-CLIP training leaves it out, because it maps
            to the joint space of another image tower.
        prefer_ema: Take the averaged weights of a file that has both kinds.
        sha256: Expected hash of the file.

    Returns:
        What was loaded, dropped and left fresh.

    Raises:
        CheckpointError: The file cannot be read safely, holds no text tower, or it does not fit.
    """
    if not isinstance(path, Checkpoint):
        path = read_checkpoint(path, prefer_ema=prefer_ema, sha256=sha256)
    target = {strip_wrapper_segments(name): value for name, value in module.state_dict().items()}
    report = LoadReport(path.path, path.source, meta=path.meta)
    try:
        prefix = _find_prefix(path.state_dict)
        tower = _take_tower(path.state_dict, prefix, projection, report)
        if not projection and 'text_projection' in target:
            report.missing.append(
                ('text_projection', 'text-projection', 'starts fresh; projection=True takes it')
            )
        wanted = {name for name in target if projection or name != 'text_projection'}
        _check_fit(tower, {name: target[name] for name in wanted})
        copy_into(target, tower, report)
    except CheckpointError as error:
        raise CheckpointError(f'{path.path or "checkpoint"}: {error}') from error
    report.dialect = detect_dialect(path.state_dict) if prefix else 'clip'
    return report


def _find_prefix(names: Iterable[str]) -> str:
    """What stands before the names of the text tower."""
    names = list(names)
    ending = 'token_embedding.weight'
    found = [name.removesuffix(ending) for name in names if name.endswith(ending)]
    found = [prefix for prefix in found if f'{prefix}positional_embedding' in names]
    if found:
        return min(found, key=lambda prefix: (len(prefix), prefix))
    if any('text_model.encoder.layers.' in name for name in names):
        raise CheckpointError(
            'it is a CLIP file of the transformers library, whose names differ; take the same '
            'model as OpenAI or OpenCLIP released it (a .pt or open_clip_*.safetensors file).'
        )
    raise CheckpointError(
        'it holds no CLIP text tower: expected token_embedding.weight and positional_embedding, '
        f'alone or after text., found {abbreviate(names, 4)}; choose a whole CLIP file.'
    )


def _take_tower(
    state_dict: Mapping[str, Tensor], prefix: str, projection: bool, report: LoadReport
) -> dict[str, Tensor]:
    tower = {}
    for name, value in state_dict.items():
        inner = name[len(prefix) :] if name.startswith(prefix) else ''
        if name in _SIZES:
            rule = ('sizes', 'a number that the model has from its config')
        elif inner == 'text_projection' and not projection:
            rule = ('text-projection', 'starts fresh; projection=True takes it')
        elif _TOWER.match(inner):
            tower[inner] = value
            report.renamed += bool(prefix)
            continue
        elif inner == 'attn_mask':
            rule = ('causal-mask', 'computed from the context length')
        elif name.rsplit('.', 1)[-1] in ('logit_scale', 'logit_bias'):
            rule = ('temperature', 'belongs to a pair of towers')
        elif inner and prefix and not name.startswith('visual.'):
            tower[inner] = value  # in the tower's own namespace: what does not fit is an error
            continue
        else:
            rule = ('image-tower', 'not part of the text tower')
        report.dropped.append((name, *rule))
    return tower


def _check_fit(tower: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Raises one sentence about all that does not fit."""
    problems = [f'missing {with_close_matches(n, tower)}' for n in target if n not in tower]
    problems += [f'unexpected {with_close_matches(n, target)}' for n in tower if n not in target]
    problems += [
        f'{name} is {tuple(tower[name].shape)} in the file and {tuple(value.shape)} in the model'
        for name, value in target.items()
        if name in tower and tower[name].shape != value.shape
    ]
    if not problems:
        return
    stored, wanted = text_size(tower), text_size(target)
    reason = ''
    if None not in (stored, wanted) and stored != wanted:
        reason = (
            f'the file holds a text tower of width {stored[0]} with {stored[1]} blocks, the model '
            f'has width {wanted[0]} with {wanted[1]} blocks; '
        )
    raise CheckpointError(
        f'{reason}{len(problems)} tensors do not fit the text tower: '
        f'{abbreviate(problems, 5)}; choose the matching architecture.'
    )
