"""Arithmetic of a forward pass, from the numbers of an architecture.

Two conventions are in use and differ by under 1 %, see the two functions. Neither counts
element-wise work such as RoPE, SiLU or the residual adds.
"""

import math
from collections.abc import Mapping, Sequence

from .clip_variants import CLIP_ARCHS, CONTEXT_LENGTH, CLIPArch, TextArch, resolve_text_arch
from .variants import EVAArch, resolve_arch


def _grid(
    arch: EVAArch, img_size: int | Sequence[int], patch_size: int | None
) -> tuple[tuple[int, int], int]:
    patch_size = patch_size or arch.patch_size
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if height % patch_size or width % patch_size:
        raise ValueError(f'img_size={img_size} is no multiple of patch_size={patch_size}.')
    return (height // patch_size, width // patch_size), patch_size


def count_macs(
    arch: str | Mapping | EVAArch,
    img_size: int | Sequence[int],
    patch_size: int | None = None,
    *,
    in_channels: int = 3,
    num_classes: int = 0,
    class_token: bool = True,
    window_size: int = 0,
    windowed_blocks: int = 0,
    relative_position: bool = False,
    kept_patches: int | None = None,
    pooled: bool = False,
) -> int:
    """Multiply-accumulates of all matrix products of one forward pass of one image.

    One multiply-accumulate is two FLOPs: twice this value is what
    ``torch.utils.flop_counter.FlopCounterMode`` counts. A training step costs three times a
    forward pass.

    Args:
        arch: Name or fields of an architecture.
        img_size: Side of the input in pixels, or (height, width).
        patch_size: Side of a patch; None for the released one.
        in_channels: Channels of the image.
        num_classes: Rows of the classifier; 0 for the trunk alone.
        class_token: Whether a class token runs with the patches.
        window_size: Side of an attention window in tokens, for the blocks that have one.
        windowed_blocks: How many blocks have windowed attention; the padding of the last windows
            is computed too and counts.
        relative_position: Queries meet the vectors of every row and every column. That many tokens
            share one product with longer keys instead of adding a matrix is not counted.
        kept_patches: Patches that the blocks see; None for all.
        pooled: The last block is computed for the class token only, as by
            :class:`evamm.EVAViT` with ``out_type='cls_token'``.

    Raises:
        ValueError: If the image is no whole number of patches.
    """
    arch = resolve_arch(arch)
    (rows, columns), patch_size = _grid(arch, img_size, patch_size)
    dims = arch.embed_dims
    tokens = (rows * columns if kept_patches is None else kept_patches) + class_token
    embed = rows * columns * in_channels * patch_size**2 * dims
    attention = 4 * tokens * dims**2 + 2 * tokens**2 * dims  # qkv and proj, then the two products
    ffn = (3 if arch.ffn == 'swiglu' else 2) * tokens * dims * arch.ffn_hidden_dims
    macs = embed + arch.depth * (attention + ffn) + dims * num_classes
    if pooled:  # keys and values of all tokens, everything else of one
        macs -= (attention + ffn - 2 * tokens * dims**2) * (tokens - 1) // tokens
    if windowed_blocks:
        padded = math.ceil(rows / window_size) * math.ceil(columns / window_size) * window_size**2
        windowed = 4 * padded * dims**2 + 2 * padded * window_size**2 * dims
        macs += windowed_blocks * (windowed - attention)
        if relative_position:
            macs += windowed_blocks * padded * 2 * window_size * dims
    if relative_position:
        macs += (arch.depth - windowed_blocks) * tokens * (rows + columns) * dims
    return macs


def count_table_macs(
    arch: str | Mapping | EVAArch, img_size: int | Sequence[int], patch_size: int | None = None
) -> int:
    """The figure that mmpretrain's tables print as "FLOPs" for the trunk of a classifier.

    It is :func:`count_macs` of the trunk without the classifier, plus 5 for every element that a
    LayerNorm normalises (the rule of mmengine's ``get_model_complexity_info``). The metafiles of
    evamm use it, so that their figures can be compared with those tables.

    Args:
        arch: Name or fields of an architecture.
        img_size: Side of the input in pixels, or (height, width).
        patch_size: Side of a patch; None for the released one.

    Raises:
        ValueError: If the image is no whole number of patches.
    """
    arch = resolve_arch(arch)
    (rows, columns), _ = _grid(arch, img_size, patch_size)
    tokens = 1 + rows * columns
    per_token = 2 * arch.embed_dims
    per_token += arch.embed_dims * arch.attn_norm + arch.ffn_hidden_dims * arch.ffn_norm
    # `fc_norm` sees only the mean of the patch tokens.
    normalised = arch.depth * tokens * per_token + arch.embed_dims
    return count_macs(arch, img_size, patch_size) + 5 * normalised


def count_text_macs(
    arch: str | Mapping | TextArch,
    embed_dims: int,
    tokens: int = CONTEXT_LENGTH,
    *,
    pooled: bool = False,
) -> int:
    """Multiply-accumulates of a text tower for one text; a causal product counts as a whole one.

    Args:
        arch: Name or fields of a text tower.
        embed_dims: Width of the joint space.
        tokens: Length of the sequence.
        pooled: Compute the last block for the pooled token only, as
            :class:`evamm.CLIPTextTransformer` does; False for the figure of published tables.
    """
    arch = resolve_text_arch(arch)
    width = arch.width
    keys = 2 * tokens * width**2
    rows = 1 if pooled else tokens
    whole = 12 * tokens * width**2 + 2 * tokens**2 * width
    last = keys + 10 * rows * width**2 + 2 * rows * tokens * width
    return (arch.depth - 1) * whole + last + width * embed_dims


def count_clip_macs(arch: str | CLIPArch) -> int:
    """Multiply-accumulates of one image and one full text, as in published tables.

    Twice this value is the column GFLOPs of OpenCLIP's ``model_profile.csv``.

    Args:
        arch: Name in :data:`evamm.models.clip_variants.CLIP_ARCHS`.
    """
    arch = CLIP_ARCHS[arch] if isinstance(arch, str) else arch
    image = count_macs(arch.vision, arch.img_size, num_classes=arch.embed_dims)
    return image + count_text_macs(arch.text, arch.embed_dims)
