"""Conversion between evamm's canonical state dict and those of other code bases.

Canonical: the trunk's names without prefix (``blocks.0.attn.qkv.weight``), the classifier or CLIP
projection as ``head.*``, everything else (text tower, neck, detector heads) under its own name.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .detectron2 import (
    COMPUTED,
    TRUNK_PREFIX,
    RopeLayout,
    detector_name_here,
    detector_name_in_detectron2,
    is_detector_name,
)
from .errors import CheckpointError, abbreviate
from .layouts import Layout, family_of, find_layout, layout_for
from .mae_decoder import decoder_name_here, decoder_name_in_mmpretrain
from .rope_buffers import is_official_table, rope_buffers, warn_of_other_angles
from .wrappers import strip_module_prefix

DIALECTS = ('evamm', 'official', 'timm', 'open_clip', 'mmpretrain', 'detectron2')

# Where a trunk may sit in a larger model; where several fit, the first one is meant.
TRUNK_PREFIXES = ('', 'backbone.', 'visual.trunk.', 'visual.', TRUNK_PREFIX, 'model.')

# Canonical names of the trunk and of what belongs to it.
TRUNK_NAME = re.compile(
    r'^(cls_token|mask_token|pos_embed|patch_embed|blocks|norm|fc_norm|lm_head|head|decoder_\w+)'
    r'(\.|$)'
)

# What no model keeps in its state dict: (rule, names, why).
_COMPUTED = (
    (
        'rope-tables',
        re.compile(r'(^|\.)rope(_win|_glb)?\.freqs_(cos|sin)$'),
        'RoPE is computed from the grid',
    ),
    ('index-tables', re.compile(r'(^|\.)relative_position_index$'), 'computed from the window'),
    ('causal-mask', re.compile(r'^(text\.)?attn_mask$'), 'computed from the context length'),
    *COMPUTED,
)

# Before it had its own class, the text tower sat at the top level of EVA-CLIP files.
_OLD_TEXT = re.compile(
    r'^(token_embedding\.|positional_embedding$|transformer\.|ln_final\.|'
    r'text_projection$)'
)
_BLOCK = re.compile(r'^blocks\.\d+\.')
_HEAD = re.compile(r'^head\.(weight|bias)$')
_HEAD_FC = re.compile(r'^head\.(?:fc|1)\.(weight|bias)$')
_HEAD_BN = re.compile(r'^head\.0\.(running_mean|running_var|num_batches_tracked)$')
_CLIP = re.compile(r'^text\.|^logit_(scale|bias)$')


def is_clip_name(name: str) -> bool:
    """Whether a canonical name belongs to a pair of towers and not to its trunk."""
    return _CLIP.match(name) is not None


@dataclass
class Canonical:
    """A state dict in canonical names, and how it came about.

    Args:
        state_dict: Tensors by canonical name.
        dialect: Code base that it comes from.
        prefix: What stood before the names of the trunk; None if there is no trunk.
        dropped: (key, rule, why) of what no model keeps.
        renamed: Number of tensors whose name was translated.
        rope_layout: The RoPE tables that a detectron2 file had, to write them again.
    """

    state_dict: dict[str, Tensor]
    dialect: str
    prefix: str | None
    dropped: list[tuple[str, str, str]] = field(default_factory=list)  # (key, rule, why)
    renamed: int = 0
    rope_layout: RopeLayout | None = None


def find_trunk_prefix(names: Iterable[str]) -> str | None:
    """What stands before the trunk's names (``'backbone.'``, ...), None if there is no trunk."""
    found = {
        match.group(1)
        for name in names
        if (match := re.match(r'(.*?)patch_embed\.proj(?:ection)?\.weight$', name))
    }
    for prefix in TRUNK_PREFIXES:
        if prefix in found:
            return prefix
    return min(found, key=lambda prefix: (len(prefix), prefix)) if found else None


def detect_dialect(state_dict: Mapping[str, Tensor]) -> str:
    """Names the code base that a flat state dict comes from.

    EVA-01 and EVA-L have the same names in evamm, the official code and timm; such a file is
    called 'evamm'. A state dict without an EVA trunk is 'unknown'.
    """
    prefix = find_trunk_prefix(state_dict)
    if prefix is None:
        return 'unknown'
    trunk, _ = _split(state_dict, prefix)
    return _dialect_of(find_layout(trunk), prefix)


def _dialect_of(layout: Layout, prefix: str) -> str:
    if prefix == 'visual.trunk.':
        return 'open_clip'
    if prefix == TRUNK_PREFIX:
        return 'detectron2'
    if prefix == 'visual.' and layout.dialect == 'evamm':
        return 'official'
    return layout.dialect


def _split(
    state_dict: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Trunk tensors with names relative to it, and the rest."""
    trunk, rest = {}, {}
    for name, value in state_dict.items():
        if name.startswith(prefix):
            trunk[name[len(prefix) :]] = value
        else:
            rest[name] = value
    return trunk, rest


def canonicalize(state_dict: Mapping[str, Tensor], dialect: str | None = None) -> Canonical:
    """Brings a flat state dict of any dialect into canonical form.

    Args:
        state_dict: Tensors by name, without wrapper entries.
        dialect: One of ``DIALECTS`` to read it as; None finds out.

    Raises:
        CheckpointError: Unknown dialect, a tensor of a split group is missing, or two tensors
            would get the same name.
    """
    if dialect is not None and dialect not in DIALECTS:
        raise CheckpointError(f'dialect={dialect!r} is unknown; use one of {DIALECTS}.')
    state_dict = strip_module_prefix(state_dict)
    out = Canonical({}, 'unknown', find_trunk_prefix(state_dict))
    kept = {}
    for name, value in state_dict.items():
        rule = next(((rule, why) for rule, names, why in _COMPUTED if names.search(name)), None)
        if rule:
            out.dropped.append((name, *rule))
        else:
            kept[name] = value
    tables = [name for name, rule, _ in out.dropped if rule == 'rope-tables']
    warn_of_other_angles(key for key in tables if not is_official_table(key, state_dict[key]))
    if out.prefix is None:
        out.state_dict = kept
        return out

    everything, _ = _split(state_dict, out.prefix)
    naming = {'open_clip': 'timm', 'detectron2': 'official'}.get(dialect, dialect)
    layout = find_layout(everything, naming)
    out.dialect = dialect or _dialect_of(layout, out.prefix)
    out.rope_layout = RopeLayout.read(state_dict)
    trunk, rest = _split(kept, out.prefix)
    joined = _join(trunk, layout)
    _split_qkv_bias(joined, layout)
    for name, value in joined.items():
        ours = _name_of_head(layout.name_in_evamm(name))
        if out.prefix == TRUNK_PREFIX and not TRUNK_NAME.match(ours):
            # Not ours: the detector has to explain it.
            ours = detector_name_here(TRUNK_PREFIX + ours)
        _put(out.state_dict, ours, value)
    for name, value in rest.items():
        _put(out.state_dict, _name_of_rest(name, rest, out.prefix), value)
    out.renamed = sum(name not in out.state_dict for name in kept)
    return out


def _put(target: dict[str, Tensor], name: str, value: Tensor) -> None:
    if name in target:
        raise CheckpointError(
            f'two tensors of the file stand for {name}; it mixes two dialects, convert it by hand.'
        )
    target[name] = value


def _name_of_head(name: str) -> str:
    """One name for heads that are a module of a class, and for the pair of a linear probe."""
    if match := _HEAD_FC.match(name):
        return f'head.{match.group(1)}'
    if match := _HEAD_BN.match(name):
        return f'head.bn.{match.group(1)}'
    return name


def _name_of_rest(name: str, rest: Mapping[str, Tensor], prefix: str) -> str:
    if prefix == TRUNK_PREFIX:
        return detector_name_here(name)
    if name.startswith('head.'):
        return _name_of_head(name)
    if prefix.startswith('visual.'):
        if name == 'text.logit_scale' and 'logit_scale' not in rest:
            return 'logit_scale'
        if _OLD_TEXT.match(name):
            return f'text.{name}'
    return decoder_name_here(name, rest)


def _join(trunk: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Stacks split tensors (q, k, v; the two SwiGLU branches) under their evamm names."""
    out = dict(trunk)
    blocks = sorted({int(name.split('.')[1]) for name in trunk if _BLOCK.match(name)})
    for ours, theirs in layout.joins:
        for block in blocks:
            parts = [part.replace('#', str(block)) for part in theirs]
            absent = [part for part in parts if part not in out]
            if len(absent) == len(parts):
                continue
            if absent:
                raise CheckpointError(
                    f'{abbreviate(absent)} is missing beside '
                    f'{abbreviate(part for part in parts if part in out)}; the file is incomplete, '
                    'get it again.'
                )
            _put(out, ours.replace('#', str(block)), torch.cat([out.pop(part) for part in parts]))
    return out


def _split_qkv_bias(trunk: dict[str, Tensor], layout: Layout) -> None:
    """mmpretrain's EVA-02 has one bias for q, k and v; the k part is zero in converted files."""
    if layout.dialect != 'mmpretrain' or layout.family == 'mlp':
        return
    for name in [name for name in trunk if name.endswith('.attn.qkv.bias')]:
        q_bias, k_bias, v_bias = trunk[name].chunk(3)
        if not k_bias.any():
            del trunk[name]
            trunk[name.replace('qkv.bias', 'q_bias')] = q_bias
            trunk[name.replace('qkv.bias', 'v_bias')] = v_bias


def to_evamm(state_dict: Mapping[str, Tensor], dialect: str | None = None) -> dict[str, Tensor]:
    """A flat state dict of any dialect in canonical evamm names; RoPE tables are left out.

    Args:
        state_dict: Tensors by name, without wrapper entries.
        dialect: One of ``DIALECTS``; None finds out.

    Raises:
        CheckpointError: See :func:`canonicalize`.
    """
    return canonicalize(state_dict, dialect).state_dict


def from_evamm(
    state_dict: Mapping[str, Tensor],
    dialect: str,
    *,
    rope: bool | None = None,
    head_dims: int | None = None,
    rope_layout: RopeLayout | None = None,
) -> dict[str, Tensor]:
    """A canonical state dict in the names of another code base.

    Nothing is left out, so that the way back gives the same bits.

    Args:
        state_dict: Canonical tensors by name.
        dialect: One of ``DIALECTS``. Detectors can be written as 'evamm' and 'detectron2'.
        rope: Write the RoPE tables that the official code and mmpretrain keep in their state
            dicts; None for every SwiGLU trunk (all released ones with SwiGLU rotate).
        head_dims: Channels of one attention head, for those tables. None knows it for the released
            trunks that rotate (64); weights alone do not tell.
        rope_layout: The tables of a detectron2 file (``canonicalize(...).rope_layout``); None
            leaves them out, and the official detector, which computes them, does without.

    Raises:
        CheckpointError: Unknown dialect, no trunk, a detector in a dialect without detectors, or,
            where tables are wanted, a position embedding that is not square or a trunk of unknown
            or impossible ``head_dims``.
    """
    if dialect not in DIALECTS:
        raise CheckpointError(f'dialect={dialect!r} is unknown; use one of {DIALECTS}.')
    if 'patch_embed.proj.weight' not in state_dict:
        raise CheckpointError(
            'expected canonical names (patch_embed.proj.weight, ...), found '
            f'{abbreviate(state_dict)}; call to_evamm first.'
        )
    if dialect == 'evamm':
        return dict(state_dict)
    if dialect == 'detectron2':
        return _detectron2_from_evamm(state_dict, rope_layout)
    _refuse_detector(state_dict, dialect)
    clip = {name for name in state_dict if is_clip_name(name)}
    probe = any(name.startswith('head.bn.') for name in state_dict)
    family = family_of(state_dict)
    layout = layout_for('timm' if dialect == 'open_clip' else dialect, family)
    prefix = {
        'official': 'visual.' if clip else '',
        'timm': 'visual.trunk.' if clip else '',
        'open_clip': 'visual.trunk.',
        'mmpretrain': 'backbone.',
    }[dialect]

    out: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        if name in clip:
            out[name] = value
        elif dialect == 'mmpretrain' and (theirs := decoder_name_in_mmpretrain(name, state_dict)):
            out[theirs] = value
        elif dialect == 'mmpretrain' and _HEAD.match(name):
            out[_HEAD.sub(r'head.fc.\1', name)] = value
        elif dialect == 'official' and probe and name.startswith('head.'):
            # The pair of an official linear probe: BatchNorm without weights, Linear.
            out[prefix + _HEAD.sub(r'head.1.\1', name.replace('head.bn.', 'head.0.'))] = value
        else:
            for part, tensor in _unjoin(name, value, state_dict, layout):
                out[prefix + layout.name_from_evamm(part)] = tensor
    wants_tables = dialect in ('official', 'mmpretrain')
    if wants_tables and (family != 'mlp' if rope is None else rope):
        blocks = 'layers' if dialect == 'mmpretrain' else 'blocks'
        out.update(rope_buffers(state_dict, f'{prefix}rope.', f'{prefix}{blocks}', head_dims))
    return out


def _refuse_detector(state_dict: Mapping[str, Tensor], dialect: str) -> None:
    parts = [name for name in state_dict if is_detector_name(name)]
    if parts:
        raise CheckpointError(
            f'it holds a detector ({abbreviate(parts, 2)}), which {dialect!r} has no names for; '
            "write it as 'detectron2' or 'evamm', or its trunk alone: trunk_only=True "
            '(--trunk-only).'
        )
    positions = [name for name in state_dict if name.endswith(('.rel_pos_h', '.rel_pos_w'))]
    if positions:
        raise CheckpointError(
            f'its blocks have relative positions ({positions[0]}), which {dialect!r} has no place '
            "for and which change the output; write it as 'detectron2' or 'evamm'."
        )


def _detectron2_from_evamm(
    state_dict: Mapping[str, Tensor], rope_layout: RopeLayout | None
) -> dict[str, Tensor]:
    layout = layout_for('official', family_of(state_dict))
    if texts := [name for name in state_dict if is_clip_name(name)]:
        raise CheckpointError(
            f"it holds an image-text pair ({abbreviate(texts, 2)}), which 'detectron2' has no "
            'names for; write its trunk alone: trunk_only=True (--trunk-only).'
        )
    out: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        if name.startswith(('neck.', 'rpn_head.', 'roi_head.')):
            out[detector_name_in_detectron2(name)] = value
        else:
            for part, tensor in _unjoin(name, value, state_dict, layout):
                out[TRUNK_PREFIX + layout.name_from_evamm(part)] = tensor
    if rope_layout is not None:
        out.update(rope_layout.tables(state_dict['pos_embed'].dtype))
    return out


def _unjoin(
    name: str, value: Tensor, state_dict: Mapping[str, Tensor], layout: Layout
) -> list[tuple[str, Tensor]]:
    """Splits what a layout keeps apart; joins the bias that mmpretrain's EVA-02 keeps together."""
    if layout.dialect == 'mmpretrain' and layout.family != 'mlp':
        if name.endswith('.attn.v_bias'):
            return []
        if name.endswith('.attn.q_bias'):
            v_bias = state_dict[name.replace('q_bias', 'v_bias')]
            packed = torch.cat((value, torch.zeros_like(value), v_bias))
            return [(name.replace('q_bias', 'qkv.bias'), packed)]
    generic = _BLOCK.sub('blocks.#.', name)
    for ours, theirs in layout.joins:
        if ours == generic:
            block = name.split('.')[1]
            parts = value.chunk(len(theirs))
            return [(part.replace('#', block), parts[i]) for i, part in enumerate(theirs)]
    return [(name, value)]
