"""Fitting a canonical state dict to a model, with a named rule for every difference."""

import fnmatch
import re
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from .class_layers import drop_other_classes
from .detectron2 import CLASS_WEIGHTS, MASK_HEAD, is_detector_name
from .dialects import TRUNK_NAME, find_trunk_prefix, is_clip_name
from .errors import CheckpointError, abbreviate, with_close_matches
from .rel_pos import resize_rel_pos
from .report import LoadReport
from .resize import resize_patch_kernel, resize_pos_embed, square_grid
from .wrappers import strip_wrapper_segments

MIM_NORM = ('to_fc_norm', 'discard')

# Missing parts that the user hears about: mmpretrain's converter and detectors have no final norm,
# detectors of Objects365 no mask head.
_WARNED = {
    'no-norm': 'final norm; the one of the model starts fresh.',
    'class-token': 'class token; the one of the model starts fresh.',
    'no-mask-head': 'mask head; the one of the model starts fresh.',
}
_REL_POS = re.compile(r'\.attn\.rel_pos_[hw]$')


def _part(name: str) -> str:
    """The part of a larger model that a tensor outside the trunk belongs to."""
    return MASK_HEAD if name.startswith(f'{MASK_HEAD}.') else name.split('.', 1)[0]


class _Target:
    """A model's tensors by canonical name."""

    def __init__(self, shapes: Mapping[str, Iterable[int]]) -> None:
        names = {name: strip_wrapper_segments(name) for name in shapes}
        if names and all(name.startswith('module.') for name in names.values()):
            names = {full: name[len('module.') :] for full, name in names.items()}
        self.prefix = find_trunk_prefix(names.values())
        self.full_name: dict[str, str] = {}
        self.shape: dict[str, tuple[int, ...]] = {}
        for full, name in names.items():
            canonical = self._canonical(name)
            if canonical in self.full_name:  # e.g. a `norm` beside the trunk
                canonical = name
            self.full_name[canonical] = full
            self.shape[canonical] = tuple(shapes[full])
        self.parts = {_part(name) for name in self.shape if not TRUNK_NAME.match(name)}

    def _canonical(self, name: str) -> str:
        if self.prefix and name.startswith(self.prefix):
            return name[len(self.prefix) :]
        if self.prefix and name in ('head.fc.weight', 'head.fc.bias'):
            return name.replace('head.fc.', 'head.')
        return name

    def has(self, beginning: str) -> bool:
        return any(name.startswith(beginning) for name in self.shape)


def fit_state_dict(
    state_dict: Mapping[str, Tensor],
    target_shapes: Mapping[str, Iterable[int]],
    *,
    grid: tuple[int, int] | None = None,
    rel_pos_rule: str = 'linear',
    mim_norm: str = 'to_fc_norm',
    allow_missing: Iterable[str] = (),
    allow_partial: bool = False,
    complete: bool = False,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Chooses, renames and resizes the tensors that a model takes from a canonical state dict.

    Args:
        state_dict: Canonical tensors by name (see :func:`evamm.checkpoints.to_evamm`).
        target_shapes: Shape of every tensor in the model's own state dict.
        grid: Patch grid (h, w) of the model; None if it is square.
        rel_pos_rule: How relative positions are resized, see :func:`evamm.checkpoints.rel_pos_map`.
        mim_norm: What happens to the final norm of a pre-trained trunk in a model that normalises
            the pooled features instead: 'to_fc_norm' moves it there (as timm does, for feature
            extraction), 'discard' lets ``fc_norm`` start fresh (official fine-tuning).
        allow_missing: Patterns (``'blocks.*.attn.norm.*'``) of tensors that may start fresh, in
            canonical names or in the model's.
        allow_partial: Load what fits and only list what no rule explains.
        complete: The model must be filled: nothing may start fresh (testing, inference).

    Returns:
        Tensors by the model's names, shaped like the model's, and the report.

    Raises:
        CheckpointError: If a tensor is left over, missing or of the wrong shape and no rule
            explains it; names the tensors and close matches.
    """
    if mim_norm not in MIM_NORM:
        raise CheckpointError(f'mim_norm={mim_norm!r} is unknown; use one of {MIM_NORM}.')
    target = _Target(target_shapes)
    report = LoadReport()
    source = dict(state_dict)
    has_trunk = find_trunk_prefix(source) is not None
    if has_trunk != (target.prefix is not None):
        who, names = ('the model', target.shape) if has_trunk else ('it', source)
        raise CheckpointError(
            f'{who} holds no EVA trunk: expected patch_embed.proj.weight, found '
            f'{abbreviate(names, 4)}; choose a checkpoint and a model of the EVA family.'
        )
    _match_qkv_bias(source, target)
    _fold_linear_probe(source, target, report)
    _move_norm(source, target, mim_norm, report)
    _drop_projection(source, target, report)
    _drop_what_the_model_lacks(source, target, report)
    unexpected = [name for name in source if name not in target.shape]
    mismatched = _resize(source, target, grid, rel_pos_rule, report)
    for name in unexpected + list(mismatched):
        del source[name]

    allowed = list(allow_missing)
    absent = [name for name in target.shape if name not in source and name not in mismatched]
    unexplained = _explain_missing(absent, state_dict, target, mim_norm, allowed, report)
    problems = [
        *(f'unexpected {with_close_matches(name, target.shape)}' for name in unexpected),
        *(f'missing {with_close_matches(name, state_dict)}' for name in unexplained),
        *(
            f'{name} is {stored} in the file and {wanted} in the model'
            for name, (stored, wanted) in mismatched.items()
        ),
    ]
    if complete:
        problems += [
            f'missing {target.full_name[name]}' for name in absent if name not in unexplained
        ]
    if problems and not allow_partial:
        raise CheckpointError(_explain_problems(problems, state_dict, target))
    report.unexplained = problems
    report.missing += [
        (target.full_name[name], 'allow-partial', 'unexplained')
        for name in [*unexplained, *mismatched]
    ]
    fitted = {target.full_name[name]: value for name, value in source.items()}
    report.loaded = list(fitted)
    return fitted, report


def _match_qkv_bias(source: dict[str, Tensor], target: _Target) -> None:
    """Writes the bias of q, k and v the way the model keeps it, where that changes nothing."""
    for name in [name for name in source if name.endswith('.attn.qkv.bias')]:
        q_name, v_name = name.replace('qkv.bias', 'q_bias'), name.replace('qkv.bias', 'v_bias')
        if name in target.shape or q_name not in target.shape:
            continue
        q_bias, k_bias, v_bias = source[name].chunk(3)
        if k_bias.any():
            # Under RoPE a key bias meets a rotation that depends on the position, so it does
            # change the attention; only a zero one can go.
            raise CheckpointError(
                f'{name} has a trained key bias, which the model has no place for and which '
                "changes its output; build the model with qkv_bias='qkv' in its arch dict."
            )
        del source[name]
        source[q_name], source[v_name] = q_bias, v_bias
    for name in [name for name in source if name.endswith('.attn.q_bias')]:
        packed, v_name = name.replace('q_bias', 'qkv.bias'), name.replace('q_bias', 'v_bias')
        if packed in target.shape and name not in target.shape and v_name in source:
            q_bias, v_bias = source.pop(name), source.pop(v_name)
            source[packed] = torch.cat((q_bias, torch.zeros_like(q_bias), v_bias))


def _fold_linear_probe(source: dict[str, Tensor], target: _Target, report: LoadReport) -> None:
    """Linear probes end in a BatchNorm without weights and a Linear: in other models one Linear."""
    probe = {'head.bn.running_mean', 'head.bn.running_var', 'head.weight', 'head.bias'}
    if not probe <= source.keys() or 'head.weight' not in target.shape or target.has('head.bn.'):
        return
    mean, var = source.pop('head.bn.running_mean'), source.pop('head.bn.running_var')
    source.pop('head.bn.num_batches_tracked', None)
    stored, bias = source['head.weight'], source['head.bias']
    weight = stored.double() * (var.double() + 1e-6).rsqrt()  # [C, D]; eps of the official code
    source['head.weight'] = weight.to(stored.dtype)
    source['head.bias'] = (bias.double() - weight @ mean.double()).to(bias.dtype)
    report.dropped += [
        (f'head.bn.running_{kind}', 'linear-probe', 'folded into the linear head')
        for kind in ('mean', 'var')
    ]


def _move_norm(
    source: dict[str, Tensor], target: _Target, mim_norm: str, report: LoadReport
) -> None:
    """The final norm of a pre-trained trunk, in a model that normalises pooled features."""
    if 'norm.weight' in target.shape or 'fc_norm.weight' in source:
        return
    pooled = 'fc_norm.weight' in target.shape
    for name in [name for name in source if name.startswith('norm.')]:
        value = source.pop(name)
        if pooled and mim_norm == 'to_fc_norm':
            source[f'fc_{name}'] = value
            report.renamed += 1
        elif pooled:
            report.dropped.append((name, 'mim-norm', "mim_norm='discard': fc_norm starts fresh"))
        else:
            report.dropped.append((name, 'final-norm', 'the model has no final norm'))


def _drop_projection(source: dict[str, Tensor], target: _Target, report: LoadReport) -> None:
    """The projection of a CLIP is no classifier, even where the numbers of outputs agree."""
    is_classifier = target.full_name.get('head.weight', '').endswith('head.fc.weight')
    if not is_classifier or not any(map(is_clip_name, source)):
        return
    for name in ('head.weight', 'head.bias'):
        if source.pop(name, None) is not None:
            report.dropped.append((name, 'clip-projection', 'it leads to texts, not to classes'))


def _drop_what_the_model_lacks(
    source: dict[str, Tensor], target: _Target, report: LoadReport
) -> None:
    has_decoder = any(name.startswith('decoder_') for name in source)
    parts_of_model = target.parts
    for name in list(source):
        rule = None
        if has_decoder and re.match(r'(decoder_\w+|mask_token)(\.|$)', name):
            if not target.has('decoder_'):
                rule = ('mae-decoder', 'the decoder of MAE pre-training is not part of the trunk')
        elif name in target.shape:
            continue
        elif re.match(r'(mask_token$|lm_head\.)', name):
            rule = ('mim-extras', 'needed for masked image modelling only')
        elif name == 'cls_token':
            rule = ('class-token', 'the model runs without a class token')
        elif name.startswith('fc_norm.') and not target.has('norm.'):
            rule = ('final-norm', 'the model has no final norm')
        elif name.startswith('head.') and not target.has('head.'):
            rule = ('head', 'the model has no classifier and no projection')
        elif is_clip_name(name) and not target.has('text.'):
            rule = ('text-tower', 'the model has no text tower')
        elif CLASS_WEIGHTS.match(name):
            rule = ('class-weights', 'computed from the image counts of the training set')
        elif not TRUNK_NAME.match(name) and _part(name) not in parts_of_model:
            rule = ('other-part', f'the model has no part named {_part(name)}')
        if rule:
            del source[name]
            report.dropped.append((name, *rule))


def _resize(
    source: dict[str, Tensor],
    target: _Target,
    grid: tuple[int, int] | None,
    rel_pos_rule: str,
    report: LoadReport,
) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Resizes in place; returns what has another shape that no rule covers."""
    wrong = {}
    for name, value in list(source.items()):
        wanted, stored = target.shape.get(name), tuple(value.shape)
        if wanted is None or wanted == stored:
            if name == 'pos_embed' and grid and grid[0] != grid[1] and square_grid(stored[1] - 1):
                warnings.warn(
                    f'pos_embed has {stored[1] - 1} patch rows and is taken for a '
                    f'{grid[0]}x{grid[1]} grid, though it could be a square one.',
                    stacklevel=4,
                )
            continue
        rule = None
        if name == 'pos_embed' and len(stored) == len(wanted) == 3 and stored[2] == wanted[2]:
            target_grid = grid or square_grid(wanted[1] - 1)
            if target_grid is None:
                raise CheckpointError(
                    f'pos_embed of the model has {wanted[1] - 1} patch rows, which is no square; '
                    'say which grid=(h, w) it is.'
                )
            resized, rule = resize_pos_embed(value, target_grid), 'bicubic position embedding'
        elif name == 'patch_embed.proj.weight' and stored[:2] == wanted[:2]:
            resized, rule = resize_patch_kernel(value, wanted[2:]), 'bicubic patch kernel'
        elif _REL_POS.search(name) and stored[1:] == wanted[1:]:
            resized = resize_rel_pos(value, wanted[0], rel_pos_rule)
            rule = f'{rel_pos_rule} relative positions'
        if rule is None or tuple(resized.shape) != wanted:
            wrong[name] = (stored, wanted)
            continue
        source[name] = resized
        report.resized.append((target.full_name[name], stored, wanted, rule))
    drop_other_classes(source, wrong, report, stacklevel=4)
    return wrong


def _explain_missing(
    absent: list[str],
    original: Mapping[str, Tensor],
    target: _Target,
    mim_norm: str,
    allowed: list[str],
    report: LoadReport,
) -> list[str]:
    """Adds explained names to the report; returns the others."""
    parts_of_file = {_part(name) for name in original if not TRUNK_NAME.match(name)}
    dropped = {rule for _, rule, _ in report.dropped}
    of_other_classes = {name for name, rule, _ in report.dropped if rule == 'class-count'}
    is_detector = any(map(is_detector_name, original))
    headless = not any(name.startswith('head.') for name in original)
    normless = not any(re.match(r'(fc_)?norm\.', name) for name in original)
    unexplained = []
    for name in absent:
        full = target.full_name[name]
        rule = None
        if any(fnmatch.fnmatchcase(item, pattern) for pattern in allowed for item in (name, full)):
            rule = ('allow-missing', 'starts fresh as asked')
        elif name.startswith('head.') and (why := dropped & {'class-count', 'clip-projection'}):
            rule = (min(why), 'starts fresh')
        elif name in of_other_classes:
            rule = ('class-count', 'starts fresh')
        elif name.startswith('head.') and headless:
            rule = ('no-head', 'the checkpoint has no head; it starts fresh')
        elif name.startswith('fc_norm.') and mim_norm == 'discard':
            rule = ('mim-norm', 'starts fresh, as in official fine-tuning')
        elif re.match(r'(fc_)?norm\.', name) and headless and normless:
            rule = ('no-norm', 'the checkpoint has no final norm; it starts fresh')
        elif name == 'cls_token' and headless and normless:
            rule = ('class-token', 'detectors are trained without one; it starts fresh')
        elif _REL_POS.search(name) and not any(_REL_POS.search(key) for key in original):
            rule = ('rel-pos', 'relative positions start at zero')
        elif name.startswith(MASK_HEAD) and MASK_HEAD not in parts_of_file and is_detector:
            rule = ('no-mask-head', 'the checkpoint finds boxes only; it starts fresh')
        elif not TRUNK_NAME.match(name) and _part(name) not in parts_of_file:
            rule = ('other-part', 'the checkpoint has no such part; it starts fresh')
        if rule:
            report.missing.append((full, *rule))
        else:
            unexplained.append(name)
    rules = {rule for _, rule, _ in report.missing}
    for rule, what in _WARNED.items():
        if rule in rules:
            warnings.warn(f'The checkpoint has no {what}', stacklevel=4)
    return unexplained


def _explain_problems(problems: list[str], source: Mapping[str, Tensor], target: _Target) -> str:
    """One sentence; starts with the architecture where that is what differs."""
    stored, wanted = _trunk_size(source), _trunk_size(target.shape)
    reason = ''
    if None not in (stored, wanted) and stored != wanted:
        reason = (
            f'the file holds a trunk of width {stored[0]} with {stored[1]} blocks, the model '
            f'has width {wanted[0]} with {wanted[1]} blocks; '
        )
    elif None not in (texts := (text_size(source, 'text.'), text_size(target.shape, 'text.'))) and (
        texts[0] != texts[1]
    ):
        reason = (
            f'the file holds a text tower of width {texts[0][0]} with {texts[0][1]} blocks, the '
            f'model has width {texts[1][0]} with {texts[1][1]} blocks; '
        )
    elif any(map(_REL_POS.search, source)) and not any(map(_REL_POS.search, target.shape)):
        reason = 'the file has relative positions, so build the trunk with relative_position=True; '
    elif 'fc_norm.weight' in source and 'norm.weight' in target.shape:
        reason = (
            'the file has a norm for pooled features only, so build the trunk with '
            "final_norm=False or out_type='avg_featmap'; "
        )
    return (
        f'{reason}{len(problems)} tensors do not fit the model: {abbreviate(problems, 5)}; choose '
        'the matching architecture, or pass allow_partial=True to load the rest.'
    )


def _trunk_size(tensors: Mapping[str, Tensor | tuple[int, ...]]) -> tuple[int, int] | None:
    kernel = tensors.get('patch_embed.proj.weight')
    if kernel is None:
        return None
    blocks = {name.split('.')[1] for name in tensors if name.startswith('blocks.')}
    return (kernel.shape if isinstance(kernel, Tensor) else kernel)[0], len(blocks)


def text_size(
    tensors: Mapping[str, Tensor | tuple[int, ...]], prefix: str = ''
) -> tuple[int, int] | None:
    """Width and number of blocks of the text tower behind a prefix, None if there is none."""
    embedding = tensors.get(f'{prefix}token_embedding.weight')
    if embedding is None:
        return None
    blocks = f'{prefix}transformer.resblocks.'
    numbers = {name[len(blocks) :].split('.')[0] for name in tensors if name.startswith(blocks)}
    return tuple(getattr(embedding, 'shape', embedding))[-1], len(numbers)
