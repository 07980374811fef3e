"""The decoder of MAE-style pre-training: its names in mmpretrain (and mmselfsup) and here.

mmpretrain keeps it in the neck, with the block names of its transformer layers; here it has the
names of ``EVA-01/eva/modeling_mae_pretrain.py``.
"""

import re
from collections.abc import Container

_NAMES = (
    ('decoder_norm.', 'neck.ln1.'),
    ('.norm1.', '.ln1.'),
    ('.norm2.', '.ln2.'),
    ('.mlp.fc1.', '.ffn.layers.0.0.'),
    ('.mlp.fc2.', '.ffn.layers.1.'),
)
_OURS = re.compile(r'(mask_token$|decoder_)')


def decoder_name_here(name: str, names: Container[str]) -> str:
    """Our name of a tensor of mmpretrain's decoder; any other name as it is.

    Args:
        name: A name of the file.
        names: All names of the file.
    """
    if not name.startswith('neck.') or 'neck.decoder_embed.weight' not in names:
        return name
    for ours, theirs in _NAMES:
        name = name.replace(theirs, ours)
    return name.removeprefix('neck.')


def decoder_name_in_mmpretrain(name: str, names: Container[str]) -> str | None:
    """mmpretrain's name of a tensor of our decoder; None for any other tensor.

    Args:
        name: A canonical name.
        names: All canonical names.
    """
    if 'decoder_embed.weight' not in names or not _OURS.match(name):
        return None
    for ours, theirs in _NAMES:
        name = name.replace(ours, theirs)
    return name if name.startswith('neck.') else f'neck.{name}'
