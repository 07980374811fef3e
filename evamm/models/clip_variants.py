"""Every released EVA-CLIP pair as data: an image tower, a text tower and the space they share.

Source: ``EVA-CLIP/rei/eva_clip/model_configs`` of github.com/baaivision/EVA.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class TextArch:
    """Numbers that define one text tower; the MLP is four times as wide as the tower.

    Args:
        width: Width W of the residual stream.
        depth: Number of blocks.
        num_heads: Attention heads; must divide ``width``.
    """

    width: int
    depth: int
    num_heads: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'arch.{field.name}={value!r} must be a positive integer.')
        if self.width % self.num_heads:
            raise ValueError(
                f'arch.width={self.width} is not a multiple of arch.num_heads={self.num_heads}.'
            )


@dataclass(frozen=True)
class CLIPArch:
    """One released pair.

    Args:
        vision: Name in :data:`evamm.models.variants.ARCHS`.
        img_size: Side of the training images in pixels.
        text: Name in :data:`TEXT_ARCHS`.
        embed_dims: Width E of the joint space.
    """

    vision: str
    img_size: int
    text: str
    embed_dims: int


# Positions and vocabulary of OpenAI's tokenizer, the same in every released pair.
CONTEXT_LENGTH = 77
VOCAB_SIZE = 49408

TEXT_ARCHS: dict[str, TextArch] = {
    'clip-base-text': TextArch(width=512, depth=12, num_heads=8),
    'clip-large-text': TextArch(width=768, depth=12, num_heads=12),
    'clip-huge-text': TextArch(width=1024, depth=24, num_heads=16),
    'clip-bigg-text': TextArch(width=1280, depth=32, num_heads=20),
}

CLIP_ARCHS: dict[str, CLIPArch] = {
    'eva01-clip-g-14': CLIPArch('eva-clip-giant', 224, 'clip-large-text', 1024),
    'eva01-clip-g-14-plus': CLIPArch('eva-clip-giant', 224, 'clip-huge-text', 1024),
    'eva02-clip-b-16': CLIPArch('eva02-clip-base', 224, 'clip-base-text', 512),
    'eva02-clip-l-14': CLIPArch('eva02-clip-large', 224, 'clip-large-text', 768),
    'eva02-clip-l-14-336': CLIPArch('eva02-clip-large', 336, 'clip-large-text', 768),
    'eva02-clip-bige-14': CLIPArch('eva02-clip-enormous', 224, 'clip-huge-text', 1024),
    'eva02-clip-bige-14-plus': CLIPArch('eva02-clip-enormous', 224, 'clip-bigg-text', 1024),
}


def resolve_text_arch(arch: str | Mapping | TextArch) -> TextArch:
    """Turns a name, a mapping of :class:`TextArch` fields or a ``TextArch`` into a ``TextArch``.

    Raises:
        KeyError: If the name is unknown; close names are offered.
        TypeError: If a mapping holds an unknown field or lacks one.
        ValueError: If the numbers do not fit together.
    """
    if isinstance(arch, TextArch):
        return arch
    if isinstance(arch, str):
        if arch not in TEXT_ARCHS:
            close = difflib.get_close_matches(arch, TEXT_ARCHS, n=3, cutoff=0.4) or TEXT_ARCHS
            raise KeyError(f'text arch={arch!r} is unknown; did you mean {", ".join(close)}?')
        return TEXT_ARCHS[arch]
    known = {field.name for field in fields(TextArch)}
    if set(arch) != known:
        raise TypeError(
            f'text arch=dict(...): unknown fields {sorted(set(arch) - known)}, missing fields '
            f'{sorted(known - set(arch))}; the fields are {sorted(known)}.'
        )
    return TextArch(**arch)
