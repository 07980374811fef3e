"""Turning a checkpoint file into one of another code base, patch size, image size or precision."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from .completeness import check_whole
from .detectron2 import RopeLayout, is_detector_name
from .dialects import canonicalize, from_evamm, is_clip_name
from .errors import CheckpointError, abbreviate
from .reading import read_checkpoint
from .report import LoadReport, not_finite, warn_about
from .resize import resize_patch_kernel, resize_pos_embed, square_grid
from .writing import write_checkpoint

# Key of a file's meta entry.
ROPE_LAYOUT = 'rope_layout'

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


def convert_checkpoint(
    source: str | os.PathLike,
    target: str | os.PathLike,
    to: str,
    *,
    patch_size: int | None = None,
    img_size: int | None = None,
    dtype: str | None = None,
    prefer_ema: bool = True,
    force: bool = False,
    dialect: str | None = None,
    head_dims: int | None = None,
    trunk_only: bool = False,
    sha256: str | None = None,
) -> LoadReport:
    """Converts a file. Without resizing or casting, converting back gives the same bits.

    Args:
        source: File in any dialect, or an http(s) address.
        target: File to write; .safetensors, or a torch file.
        to: One of ``DIALECTS``; a whole detector can become 'evamm' or 'detectron2'.
        patch_size: Resize the patch kernel; 16 makes the official p14to16 files.
        img_size: Resize the position embedding to this image size in pixels; None keeps the size
            (and so changes the grid if the patch size changes).
        dtype: 'fp32', 'fp16' or 'bf16' for all floating-point tensors; None keeps what is there.
            A resized patch kernel is fp32, as the official script leaves it.
        prefer_ema: Take the averaged weights of a file that has both kinds.
        force: Overwrite ``target``.
        dialect: Code base of ``source``; None finds out.
        head_dims: Channels of one attention head, for the RoPE tables that official and mmpretrain
            files carry; None takes it from the tables in ``source``, or knows it for a released
            trunk.
        trunk_only: Write the trunk without what stands around it (text tower, pyramid, heads of a
            detector), for another task.
        sha256: Expected hash of ``source``.

    Returns:
        What was done; ``loaded`` lists the names written.

    Raises:
        CheckpointError: See :func:`read_checkpoint` and :func:`from_evamm`; the target exists; a
            size does not fit.
    """
    path = Path(target).expanduser()
    if path.exists() and not force:
        raise CheckpointError(f'{path}: exists; choose another name, or pass --force.')
    if not path.absolute().parent.is_dir():
        raise CheckpointError(f'{path.absolute().parent}: no such folder; make it first.')
    for name, value in dict(patch_size=patch_size, img_size=img_size, head_dims=head_dims).items():
        if value is not None and value < 1:
            raise CheckpointError(f'{name}={value} must be at least 1.')
    if dtype is not None and dtype not in DTYPES:
        raise CheckpointError(f'dtype={dtype!r} is unknown; use one of {tuple(DTYPES)}.')
    checkpoint = read_checkpoint(source, prefer_ema=prefer_ema, sha256=sha256)
    report = LoadReport(checkpoint.path, checkpoint.source)
    try:
        canonical = canonicalize(checkpoint.state_dict, dialect)
        state_dict = canonical.state_dict
        if canonical.prefix is None:
            raise CheckpointError(
                'it holds no EVA trunk: expected patch_embed.proj.weight, found '
                f'{abbreviate(state_dict, 4)}; only EVA files can be converted.'
            )
        check_whole(state_dict)
        if trunk_only:
            state_dict = _trunk_of(state_dict, report)
        _resize(state_dict, patch_size, img_size, report)
        if dtype is not None:
            state_dict = {
                name: value.to(DTYPES[dtype]) if value.is_floating_point() else value
                for name, value in state_dict.items()
            }
        head_dims = _head_dims(head_dims, checkpoint.state_dict)
        meta = checkpoint.meta
        rope_layout = canonical.rope_layout or RopeLayout.from_meta(meta.get(ROPE_LAYOUT))
        converted = from_evamm(state_dict, to, head_dims=head_dims, rope_layout=rope_layout)
        report.not_finite = not_finite(converted)
    except CheckpointError as error:
        raise CheckpointError(f'{checkpoint.path}: {error}') from error
    warn_about(report)
    report.dialect = canonical.dialect
    report.dropped += [entry for entry in canonical.dropped if entry[0] not in converted]
    report.renamed = sum(name not in converted for name in checkpoint.state_dict)
    report.loaded, report.meta = list(converted), checkpoint.meta
    # Detectors of detectron2 keep tables that weights alone do not tell; for the way back.
    kept = {} if rope_layout is None or to != 'evamm' else {ROPE_LAYOUT: rope_layout.to_meta()}
    content = _wrap(converted, to, path, meta, kept)
    write_checkpoint(content, path, metadata={'dialect': to, **kept})
    return report


def _trunk_of(state_dict: Mapping[str, Tensor], report: LoadReport) -> dict[str, Tensor]:
    trunk = {
        name: value
        for name, value in state_dict.items()
        if not is_detector_name(name) and not is_clip_name(name)
    }
    report.dropped += [
        (name, 'trunk-only', 'not a part of the trunk') for name in state_dict if name not in trunk
    ]
    if 'cls_token' not in trunk:
        warnings.warn(
            'The trunk of a detector has no class token and no final norm; a model that has them '
            'starts with fresh ones.',
            stacklevel=3,
        )
    return trunk


def _head_dims(given: int | None, stored: Mapping[str, Tensor]) -> int | None:
    """What the tables of the file say about the channels of a head, or what the caller says."""
    sizes = {value.shape[-1] for name, value in stored.items() if name.endswith('.freqs_cos')}
    if given is not None and sizes and sizes != {given}:
        raise CheckpointError(
            f'head_dims={given}, but its RoPE tables have {sorted(sizes)} channels; leave '
            'head_dims (--head-dims) out.'
        )
    return given if given is not None or len(sizes) != 1 else sizes.pop()


def _resize(
    state_dict: dict[str, Tensor],
    patch_size: int | None,
    img_size: int | None,
    report: LoadReport,
) -> None:
    if patch_size is None and img_size is None:
        return
    kernel, pos_embed = (state_dict.get(name) for name in ('patch_embed.proj.weight', 'pos_embed'))
    if kernel is None or pos_embed is None:
        raise CheckpointError('it holds no EVA trunk, so there is nothing to resize.')
    grid = square_grid(pos_embed.shape[1] - 1)
    if grid is None:
        raise CheckpointError(
            f'pos_embed has {pos_embed.shape[1] - 1} patch rows, which is no square; only files '
            'for square images can be resized.'
        )
    patch = patch_size or kernel.shape[-1]
    pixels = img_size or grid[0] * kernel.shape[-1]
    if patch < 1 or pixels < patch or pixels % patch:
        raise CheckpointError(
            f'an image of {pixels} pixels cannot be cut into patches of {patch}; give '
            f'--img-size as a multiple of {patch}.'
        )
    side = pixels // patch
    resized = {
        'patch_embed.proj.weight': resize_patch_kernel(kernel, patch),
        'pos_embed': resize_pos_embed(pos_embed, (side, side)),
    }
    for name, value in resized.items():
        if value.shape != state_dict[name].shape:
            report.resized.append(
                (name, tuple(state_dict[name].shape), tuple(value.shape), 'bicubic')
            )
        state_dict[name] = value


def _wrap(
    converted: dict[str, Tensor], to: str, path: Path, meta: dict, more: Mapping[str, str]
) -> dict:
    """Puts around the tensors what each code base expects in a torch file."""
    if path.suffix == '.safetensors':
        return converted
    kept = {key: meta[key] for key in ('dataset_meta', 'CLASSES') if key in meta} | more
    if to in ('evamm', 'mmpretrain'):
        return {'meta': kept, 'state_dict': converted}
    if to == 'detectron2':
        return {'model': converted}
    if to == 'official' and not any(name.startswith('visual.') for name in converted):
        return {'model': converted}
    return converted
