"""Detectors of the official forks of detectron2: their names here, and what they keep besides.

The trunk lies under ``backbone.net.`` and is written as in the official classification code; this
module is about everything around it. Official: ``EVA-0{1,2}/det/detectron2``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .layouts import Layout
from .rope_buffers import official_rope_tables

TRUNK_PREFIX = 'backbone.net.'

# Beginnings of our names of what a detector has around its trunk.
DETECTOR_PARTS = ('neck.levels.', 'rpn_head.', 'roi_head.')

# Objects365 has no masks, so its detectors lack this one.
MASK_HEAD = 'roi_head.mask_head'

# What detectron2 computes when it builds a model: (rule, names, why). It keeps them out of state
# dicts today; its averaged weights (`ema_state`) and files of older versions have them.
COMPUTED = (
    (
        'pixel-statistics',
        re.compile(r'^pixel_(mean|std)$'),
        'the data preprocessor has its own, from the config',
    ),
    (
        'anchors',
        re.compile(r'\banchor_generator\.cell_anchors\.\d+$'),
        'anchors are computed from the config',
    ),
)

# Weights of the classes in the draw of the federated loss: a buffer there, not kept here.
CLASS_WEIGHTS = re.compile(r'^roi_head\.bbox_head\.\d+\.loss_cls\.class_weights$')


def _pyramid() -> Iterable[tuple[str, str]]:
    """Levels 2 to 5: a sequence of what resizes, a 1x1 and a 3x3 convolution."""
    for level, (resize, lateral) in enumerate((((0, 1, 3), 4), ((0,), 1), ((), 0), ((), 1))):
        ours, theirs = f'neck.levels.{level}', f'backbone.simfp_{level + 2}'
        for index in resize:
            yield f'{ours}.resize.{index}', f'{theirs}.{index}'
        for offset, name in enumerate(('lateral', 'output')):
            yield f'{ours}.{name}.norm', f'{theirs}.{lateral + offset}.norm'
            yield f'{ours}.{name}.conv', f'{theirs}.{lateral + offset}'


def _convs(ours: str, theirs: str) -> Iterable[tuple[str, str]]:
    """Four convolutions with norms; theirs are counted from 1."""
    for index in range(4):
        yield f'{ours}.{index}.ln', f'{theirs}{index + 1}.norm'
        yield f'{ours}.{index}.conv', f'{theirs}{index + 1}'


# Read in both directions, like the tables of trunks; ``#`` is the stage of the cascade.
_AROUND_THE_TRUNK = Layout(
    'detectron2',
    'any',
    lambda names: True,
    (
        *_pyramid(),
        ('rpn_head.rpn_conv.0.conv', 'proposal_generator.rpn_head.conv.conv0'),
        ('rpn_head.rpn_conv.1.conv', 'proposal_generator.rpn_head.conv.conv1'),
        ('rpn_head.rpn_cls', 'proposal_generator.rpn_head.objectness_logits'),
        ('rpn_head.rpn_reg', 'proposal_generator.rpn_head.anchor_deltas'),
        *_convs('roi_head.bbox_head.#.shared_convs', 'roi_heads.box_head.#.conv'),
        ('roi_head.bbox_head.#.shared_fcs.0', 'roi_heads.box_head.#.fc1'),
        ('roi_head.bbox_head.#.fc_cls', 'roi_heads.box_predictor.#.cls_score'),
        ('roi_head.bbox_head.#.fc_reg', 'roi_heads.box_predictor.#.bbox_pred'),
        (
            'roi_head.bbox_head.#.loss_cls.class_weights',
            'roi_heads.box_predictor.#.fed_loss_cls_weights',
        ),
        *_convs('roi_head.mask_head.convs', 'roi_heads.mask_head.mask_fcn'),
        ('roi_head.mask_head.upsample', 'roi_heads.mask_head.deconv'),
        ('roi_head.mask_head.conv_logits', 'roi_heads.mask_head.predictor'),
        # Whatever else a fork may have there stays in its part, where loading will not overlook it.
        ('rpn_head.generator', 'proposal_generator'),
        ('roi_head', 'roi_heads'),
        ('neck', 'backbone'),
    ),
)


def detector_name_here(name: str) -> str:
    """Our name of a tensor around the trunk of a detectron2 file."""
    return _AROUND_THE_TRUNK.name_in_evamm(name)


def detector_name_in_detectron2(name: str) -> str:
    """detectron2's name of one of our tensors around the trunk."""
    return _AROUND_THE_TRUNK.name_from_evamm(name)


def is_detector_name(name: str) -> bool:
    """Whether a canonical name belongs to a detector and not to its trunk."""
    return name.startswith(DETECTOR_PARTS)


@dataclass(frozen=True)
class RopeLayout:
    """Which RoPE tables an EVA-02 detector of detectron2 keeps.

    Args:
        window: Side of the attention window in tokens.
        grid: Side of the grid in tokens.
        head_dims: Channels of one attention head.
        blocks: For every block whether it has windows; empty in averaged weights, which hold the
            two shared tables only.
    """

    window: int
    grid: int
    head_dims: int
    blocks: tuple[bool, ...] = ()

    @classmethod
    def read(cls, state_dict: Mapping[str, Tensor]) -> 'RopeLayout | None':
        """Finds it in a flat detectron2 state dict; None if that has no square tables."""
        shapes = {
            name: tuple(value.shape)
            for name, value in state_dict.items()
            if name.startswith(TRUNK_PREFIX) and name.endswith('.freqs_cos')
        }
        shared = [shapes.get(f'{TRUNK_PREFIX}rope_{kind}.freqs_cos') for kind in ('win', 'glb')]
        if any(shape is None or len(shape) != 2 for shape in shared):
            return None
        sides = [round(shape[0] ** 0.5) for shape in shared]
        blocks = []
        while shape := shapes.get(f'{TRUNK_PREFIX}blocks.{len(blocks)}.attn.rope.freqs_cos'):
            blocks.append(shape == shared[0])
        return cls(*sides, shared[0][1], tuple(blocks))

    @classmethod
    def from_meta(cls, meta: Any) -> 'RopeLayout | None':
        """The layout that :meth:`to_meta` wrote; None if it is not that."""
        match = re.fullmatch(r'window=(\d+) grid=(\d+) head_dims=(\d+) blocks=([wg]*)', str(meta))
        if match is None:
            return None
        return cls(*map(int, match.groups()[:3]), tuple(kind == 'w' for kind in match[4]))

    def to_meta(self) -> str:
        """One line of text, which any kind of file can hold."""
        blocks = ''.join('w' if windowed else 'g' for windowed in self.blocks)
        return f'window={self.window} grid={self.grid} head_dims={self.head_dims} blocks={blocks}'

    def tables(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The tables by detectron2's names."""
        windowed = official_rope_tables((self.window, self.window), self.head_dims)
        whole = official_rope_tables((self.grid, self.grid), self.head_dims)
        homes = {'rope_win': windowed, 'rope_glb': whole}
        for block, has_windows in enumerate(self.blocks):
            homes[f'blocks.{block}.attn.rope'] = windowed if has_windows else whole
        # Copies, because safetensors refuses tensors that share memory.
        return {
            f'{TRUNK_PREFIX}{home}.freqs_{kind}': table.to(dtype, copy=True)
            for home, tables in homes.items()
            for kind, table in zip(('cos', 'sin'), tables, strict=True)
        }
