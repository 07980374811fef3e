"""Every released EVA architecture as data.

Numbers only: what a name means is read here, what is done with it lives in
:class:`evamm.models.backbones.EVAViT`. Image size, patch size and drop path are not part of an
architecture; they are arguments of the trunk, with the released patch size as the default.

Sources: ``EVA-01/eva/modeling_finetune.py``, ``EVA-02/asuka/modeling_finetune.py`` and
``EVA-CLIP/rei/eva_clip/model_configs`` of github.com/baaivision/EVA.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields

# Side of the grid that EVA-02 was pre-trained on (224 / 14). RoPE coordinates are always scaled
# to it, whatever the patch or image size.
ROPE_REFERENCE_GRID = 16


@dataclass(frozen=True)
class EVAArch:
    """Numbers that define one trunk.

    Args:
        embed_dims: Width D of the residual stream.
        depth: Number of blocks.
        num_heads: Attention heads; must divide ``embed_dims``.
        ffn_hidden_dims: Hidden width H of the FFN. ``None`` means ``int(embed_dims * 8 / 3)``
            for SwiGLU and ``4 * embed_dims`` for the MLP.
        ffn: ``'swiglu'`` (EVA-02) or ``'mlp'`` (fc1-GELU-fc2).
        ffn_norm: LayerNorm on the hidden product of SwiGLU (sub-LN of EVA-02 B and L).
        attn_norm: LayerNorm between attention and its output projection. Only the EVA-02-CLIP
            towers have it; "subln" of the EVA-02 MIM code does *not* mean this.
        qkv_bias: ``'qv'`` (no bias on k), ``'qkv'`` (EVA-L) or ``'none'``.
        post_norm: LayerNorm after the sublayer, before the residual add (EVA-02-CLIP-E).
        rope: Rotate q and k of the patch tokens by their 2-D position.
        patch_size: Released patch size.
    """

    embed_dims: int
    depth: int
    num_heads: int
    ffn_hidden_dims: int | None = None
    ffn: str = 'swiglu'
    ffn_norm: bool = False
    attn_norm: bool = False
    qkv_bias: str = 'qv'
    post_norm: bool = False
    rope: bool = True
    patch_size: int = 14

    def __post_init__(self) -> None:
        if self.ffn not in ('swiglu', 'mlp'):
            raise ValueError(f"arch.ffn={self.ffn!r} is unknown; use 'swiglu' or 'mlp'.")
        if self.qkv_bias not in ('qv', 'qkv', 'none'):
            raise ValueError(
                f"arch.qkv_bias={self.qkv_bias!r} is unknown; use 'qv', 'qkv' or 'none'."
            )
        if self.ffn_norm and self.ffn != 'swiglu':
            raise ValueError("arch.ffn_norm=True needs arch.ffn='swiglu'; the MLP has no norm.")
        for name in ('embed_dims', 'depth', 'num_heads', 'patch_size'):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'arch.{name}={value!r} must be a positive integer.')
        if self.embed_dims % self.num_heads:
            raise ValueError(
                f'arch.embed_dims={self.embed_dims} is not a multiple of '
                f'arch.num_heads={self.num_heads}.'
            )
        if self.rope and self.head_dims % 4:
            raise ValueError(
                f'RoPE rotates pairs along two axes, so embed_dims / num_heads must be a multiple '
                f'of 4; it is {self.head_dims}. Change arch.num_heads or set arch.rope=False.'
            )
        if self.ffn_hidden_dims is None:
            # The official code truncates: 1024 * 8 / 3 gives 2730, not 2731 or 2736.
            hidden = self.embed_dims * 8 // 3 if self.ffn == 'swiglu' else 4 * self.embed_dims
            object.__setattr__(self, 'ffn_hidden_dims', hidden)
        elif not isinstance(self.ffn_hidden_dims, int) or self.ffn_hidden_dims < 1:
            raise ValueError(
                f'arch.ffn_hidden_dims={self.ffn_hidden_dims!r} must be a positive integer, or '
                'None for the usual width.'
            )

    @property
    def head_dims(self) -> int:
        return self.embed_dims // self.num_heads


_GIANT = dict(embed_dims=1408, depth=40, num_heads=16, ffn_hidden_dims=6144, ffn='mlp', rope=False)
_BASE = dict(embed_dims=768, depth=12, num_heads=12, ffn_hidden_dims=2048, ffn_norm=True)
_LARGE = dict(embed_dims=1024, depth=24, num_heads=16, ffn_hidden_dims=2730, ffn_norm=True)

ARCHS: dict[str, EVAArch] = {
    # EVA-01 (paper 2211.07636) and EVA-L, its MAE-style sibling with a bias on q, k and v.
    'eva-giant': EVAArch(**_GIANT),
    'eva-large': EVAArch(
        embed_dims=1024,
        depth=24,
        num_heads=16,
        ffn_hidden_dims=4096,
        ffn='mlp',
        qkv_bias='qkv',
        rope=False,
    ),
    # EVA-02 (paper 2303.11331, table 4).
    'eva02-tiny': EVAArch(embed_dims=192, depth=12, num_heads=3, ffn_hidden_dims=512),
    'eva02-small': EVAArch(embed_dims=384, depth=12, num_heads=6, ffn_hidden_dims=1024),
    'eva02-base': EVAArch(**_BASE),
    'eva02-large': EVAArch(**_LARGE),
    # Vision towers of EVA-CLIP (paper 2303.15389); the projection is not part of the trunk.
    'eva-clip-giant': EVAArch(**_GIANT),
    'eva02-clip-base': EVAArch(**_BASE, attn_norm=True, patch_size=16),
    'eva02-clip-large': EVAArch(**_LARGE, attn_norm=True),
    'eva02-clip-enormous': EVAArch(
        embed_dims=1792,
        depth=64,
        num_heads=16,
        ffn_hidden_dims=15360,
        ffn='mlp',
        post_norm=True,
        rope=False,
    ),
}


def resolve_arch(arch: str | Mapping | EVAArch) -> EVAArch:
    """Turns a name, a mapping of :class:`EVAArch` fields or an ``EVAArch`` into an ``EVAArch``.

    Raises:
        KeyError: If the name is unknown; close names are offered.
        TypeError: If a mapping holds an unknown field or lacks a mandatory one.
        ValueError: If the numbers do not fit together.
    """
    if isinstance(arch, EVAArch):
        return arch
    if isinstance(arch, str):
        if arch not in ARCHS:
            close = difflib.get_close_matches(arch, ARCHS, n=3, cutoff=0.4) or sorted(ARCHS)
            raise KeyError(f'arch={arch!r} is unknown; did you mean {", ".join(close)}?')
        return ARCHS[arch]
    known = {field.name for field in fields(EVAArch)}
    unknown = sorted(set(arch) - known)
    missing = sorted({'embed_dims', 'depth', 'num_heads'} - set(arch))
    if unknown or missing:
        raise TypeError(
            f'arch=dict(...): unknown fields {unknown}, missing fields {missing}; '
            f'the fields are {sorted(known)}.'
        )
    return EVAArch(**arch)
