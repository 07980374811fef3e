"""Names of the trunk's tensors in each code base, as tables that are read in both directions.

A layout says how one code base names and splits the tensors of one FFN family. Names that no table
mentions are the same everywhere. ``#`` stands for the number of a block.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

# FFN families. 'subln': SwiGLU with an inner norm, for which the official code splits q, k, v and
# w1, w2; 'packed': SwiGLU without (w12); 'mlp': fc1-GELU-fc2.
FAMILIES = ('subln', 'packed', 'mlp')


def _compile(source: str, target: str) -> tuple[re.Pattern, str]:
    pattern = re.escape(source).replace(r'\#', r'(?P<i>\d+)')
    return re.compile(rf'^{pattern}(?=\.|$)'), target.replace('#', r'\g<i>')


@dataclass(frozen=True)
class Layout:
    """How one code base writes one family.

    Args:
        dialect: Name of the code base.
        family: Entry of ``FAMILIES``.
        marker: Whether a trunk (names relative to it) is written in this layout.
        renames: (evamm, theirs) beginnings of names; the first match counts.
        joins: (evamm, theirs) where evamm stacks several of their tensors along axis 0.
    """

    dialect: str
    family: str
    marker: Callable[[Mapping[str, Tensor]], bool]
    renames: tuple[tuple[str, str], ...] = ()
    joins: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @cached_property
    def _to_evamm(self) -> list[tuple[re.Pattern, str]]:
        return [_compile(theirs, ours) for ours, theirs in self.renames]

    @cached_property
    def _from_evamm(self) -> list[tuple[re.Pattern, str]]:
        return [_compile(ours, theirs) for ours, theirs in self.renames]

    def name_in_evamm(self, name: str) -> str:
        return _rename(name, self._to_evamm)

    def name_from_evamm(self, name: str) -> str:
        return _rename(name, self._from_evamm)


def _rename(name: str, rules: list[tuple[re.Pattern, str]]) -> str:
    for pattern, target in rules:
        if pattern.search(name):
            return pattern.sub(target, name, count=1)
    return name


def family_of(trunk: Mapping[str, Tensor]) -> str:
    """The FFN family of a trunk in evamm names."""
    if any(re.match(r'blocks\.\d+\.mlp\.w12\.', name) for name in trunk):
        subln = any(re.match(r'blocks\.\d+\.mlp\.norm\.', name) for name in trunk)
        return 'subln' if subln else 'packed'
    return 'mlp'


def _has(*names: str) -> Callable[[Mapping[str, Tensor]], bool]:
    return lambda trunk: any(name in trunk for name in names)


def _timm_packs_two_branches(trunk: Mapping[str, Tensor]) -> bool:
    up, down = trunk.get('blocks.0.mlp.fc1.weight'), trunk.get('blocks.0.mlp.fc2.weight')
    return up is not None and down is not None and up.shape[0] == 2 * down.shape[1]


def _has_official_extras(trunk: Mapping[str, Tensor]) -> bool:
    return any('rope.freqs_' in name or '.inner_attn_ln.' in name for name in trunk)


_QKV = (
    'blocks.#.attn.qkv.weight',
    ('blocks.#.attn.q_proj.weight', 'blocks.#.attn.k_proj.weight', 'blocks.#.attn.v_proj.weight'),
)


def _gate(first: str, second: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(
        (
            f'blocks.#.mlp.w12.{kind}',
            (f'blocks.#.mlp.{first}.{kind}', f'blocks.#.mlp.{second}.{kind}'),
        )
        for kind in ('weight', 'bias')
    )


_MMPRETRAIN = (
    ('patch_embed.proj', 'patch_embed.projection'),
    ('fc_norm', 'ln2'),
    ('norm', 'ln1'),
)
_BLOCKS = (('blocks', 'layers'),)

# Read from top to bottom: the first layout whose marker fits is the one.
LAYOUTS: tuple[Layout, ...] = (
    # mmpretrain's ViTEVA02 and BEiTViT (configs/eva02, configs/eva).
    Layout('mmpretrain', 'subln', _has('layers.0.mlp.norm.weight'), _MMPRETRAIN + _BLOCKS),
    Layout('mmpretrain', 'packed', _has('layers.0.mlp.w12.weight'), _MMPRETRAIN + _BLOCKS),
    Layout(
        'mmpretrain',
        'mlp',
        _has('layers.0.ffn.layers.0.0.weight'),
        _MMPRETRAIN
        + (
            ('blocks.#.norm1', 'layers.#.ln1'),
            ('blocks.#.norm2', 'layers.#.ln2'),
            ('blocks.#.mlp.fc1', 'layers.#.ffn.layers.0.0'),
            ('blocks.#.mlp.fc2', 'layers.#.ffn.layers.1'),
        )
        + _BLOCKS,
    ),
    # timm's eva.py; its plain ViT (EVA-L) has evamm's names.
    Layout(
        'timm',
        'subln',
        _has('blocks.0.mlp.fc1_g.weight'),
        (
            ('blocks.#.mlp.w3', 'blocks.#.mlp.fc2'),
            ('blocks.#.attn.q_bias', 'blocks.#.attn.q_proj.bias'),
            ('blocks.#.attn.v_bias', 'blocks.#.attn.v_proj.bias'),
        ),
        (_QKV, *_gate('fc1_g', 'fc1_x')),
    ),
    Layout(
        'timm',
        'packed',
        _timm_packs_two_branches,
        (('blocks.#.mlp.w12', 'blocks.#.mlp.fc1'), ('blocks.#.mlp.w3', 'blocks.#.mlp.fc2')),
    ),
    # EVA-01/eva, EVA-02/asuka, EVA-CLIP/rei, EVA-0x/det, EVA-0x/seg.
    Layout(
        'official',
        'subln',
        _has('blocks.0.mlp.w1.weight', 'blocks.0.attn.q_proj.weight'),
        (
            ('blocks.#.mlp.norm', 'blocks.#.mlp.ffn_ln'),
            ('blocks.#.attn.norm', 'blocks.#.attn.inner_attn_ln'),
        ),
        (_QKV, *_gate('w1', 'w2')),
    ),
    # Below, names are the same in every code base; only RoPE tables give the official one away.
    Layout('official', 'packed', _has_official_extras),
    Layout('evamm', 'any', lambda trunk: True),
)


def find_layout(trunk: Mapping[str, Tensor], dialect: str | None = None) -> Layout:
    """The layout that a trunk is written in, among those of ``dialect`` if given."""
    same_names = LAYOUTS[-1]
    candidates = [item for item in LAYOUTS if dialect is None or item.dialect == dialect]
    return next((item for item in candidates if item.marker(trunk)), same_names)


def layout_for(dialect: str, family: str) -> Layout:
    """The layout that ``dialect`` writes ``family`` in."""
    for item in LAYOUTS:
        if item.dialect == dialect and item.family == family:
            return item
    return LAYOUTS[-1]
