"""Absolute position embeddings at any grid."""

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_pos_embed(
    pos_embed: Tensor, source: tuple[int, int], target: tuple[int, int], prefix_tokens: int = 1
) -> Tensor:
    """Resizes the patch rows of a position embedding; prefix rows are kept.

    Bicubic, ``align_corners=False``, no antialiasing, computed in fp32: the rule of the official
    fine-tuning code (``EVA-02/asuka/run_class_finetuning.py``). timm antialiases instead, which
    gives other numbers when shrinking.

    Args:
        pos_embed: [1, prefix_tokens + h * w, D].
        source: Grid (h, w) that ``pos_embed`` was made for.
        target: Wanted grid (h', w').
        prefix_tokens: Leading rows without a position, such as the class token's.

    Returns:
        Tensor of shape [1, prefix_tokens + h' * w', D] in the dtype of ``pos_embed``.

    Raises:
        ValueError: If the number of rows does not fit ``source``.
    """
    if tuple(source) == tuple(target):
        return pos_embed
    rows = pos_embed.shape[1] - prefix_tokens
    if rows != source[0] * source[1]:
        raise ValueError(
            f'pos_embed has {rows} patch rows, a {source[0]}x{source[1]} grid needs '
            f'{source[0] * source[1]}.'
        )
    prefix, patches = pos_embed[:, :prefix_tokens], pos_embed[:, prefix_tokens:]
    patches = patches.float().unflatten(1, source).permute(0, 3, 1, 2)  # [1, D, h, w]
    patches = F.interpolate(patches, size=target, mode='bicubic', align_corners=False)
    patches = patches.flatten(2).transpose(1, 2).to(pos_embed.dtype)  # [1, h' * w', D]
    return torch.cat((prefix, patches), dim=1)
