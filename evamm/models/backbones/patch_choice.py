"""Running some of the patches only: patch dropout (FLIP) and MAE."""

import torch
from torch import Tensor


def draw_patches(batch: int, patches: int, kept: int, device: torch.device) -> Tensor | None:
    """A random choice of patches for every sample.

    Official: ``EVA-CLIP/rei/eva_clip/transformer.py``, ``rope.py``.

    Args:
        batch: Number of samples B.
        patches: Number of patches N.
        kept: How many to choose, K.
        device: Where to draw.

    Returns:
        Numbers of the patches, [B, K], or None if all are kept.
    """
    if kept == patches:
        return None
    return torch.rand(batch, patches, device=device).topk(kept).indices


def take_patches(
    x: Tensor, rope: Tensor | None, patches: Tensor, prefix_tokens: int
) -> tuple[Tensor, Tensor | None]:
    """Tokens of some patches, which differ from sample to sample, and their rows of the table.

    Args:
        x: Tokens, [B, P + N, D], P of them without a position.
        rope: Table, [P + N, d/2, 2], or None.
        patches: Numbers of the patches, [B, K].
        prefix_tokens: P.

    Returns:
        [B, P + K, D] and [B, P + K, d/2, 2].
    """
    batch, tokens, _ = x.shape
    first = patches.new_zeros(batch, prefix_tokens)
    index = torch.cat((first, patches + prefix_tokens), dim=1)
    start = torch.arange(0, batch * tokens, tokens, device=x.device)[:, None]  # [B, 1]
    return x.flatten(0, 1)[index + start], None if rope is None else rope[index]
