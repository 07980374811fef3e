"""Weights and inputs of the golden tensors, from a formula.

The golden files hold outputs of the official code only; whoever checks them makes the weights and
inputs again with `tensor`. Every tensor depends on its name and shape alone. The numbers come from
the raw 64-bit stream of PCG64, which numpy promises never to change (the distributions built on it
carry no such promise), so the files stay valid on any numpy.
"""

import zlib

import numpy as np
import torch
from torch import Tensor

# Gains are chosen so that a mistake anywhere shows in the output: attention is far from uniform
# (large q and k), and tokens stay so small that the eps of a norm matters in the sixth digit.
_GAINS = (
    ('attn.qkv.weight', 1.5),
    ('_proj.weight', 1.5),
    ('in_proj_weight', 3.0),
    ('mlp.w', 0.4),
    ('mlp.fc', 0.4),
    ('attn.proj.weight', 0.1),
    ('patch_embed.proj.weight', 0.1),
)


def uniform(name: str, shape: tuple[int, ...]) -> Tensor:
    """Reproducible numbers with mean 0 and variance 1, uniform in +-sqrt(3).

    Args:
        name: seeds the stream through its CRC-32.
        shape: shape of the result.

    Returns:
        fp32 tensor of that shape.
    """
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape, dtype=int)))
    unit = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return torch.from_numpy(((2 * unit - 1) * 3**0.5).astype(np.float32)).reshape(shape)


def scaled(name: str, values: Tensor) -> Tensor:
    """Scales unit numbers to what the weight called `name` is: matrix, norm, bias or token.

    Args:
        name: key in a state dict.
        values: numbers with mean 0 and variance 1, in the shape of the weight.

    Returns:
        tensor of the same shape.
    """
    if 'rope' in name:  # what a file stores here must never be used
        return values
    if name.endswith(('token', 'pos_embed')):
        return 0.1 * values
    if 'gamma' in name:
        return 0.5 + 0.1 * values
    if values.ndim == 1:
        is_norm = 'norm' in name or 'ln' in name.rsplit('.', 2)[-2] or 'simfp_2.1.' in name
        return 1 + 0.2 * values if is_norm and name.endswith('weight') else 0.05 * values
    gain = next((g for part, g in _GAINS if part in name), 1.0)
    return gain / float(np.prod(values.shape[1:])) ** 0.5 * values


def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight called `name` of a golden case, fp32."""
    return scaled(name, uniform(name, tuple(shape)))


def state_dict(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Weights for a list of keys and shapes."""
    return {name: tensor(name, tuple(shape)) for name, shape in shapes.items()}


def captions(count: int, length: int, vocab: int) -> Tensor:
    """Token ids of texts: a start, words, the end, zeros; the first text fills all positions.

    Args:
        count: number of texts.
        length: positions.
        vocab: size of the vocabulary; its last two ids are the start and the end.

    Returns:
        int64 tensor [count, length].
    """
    unit = (uniform('captions', (count, length)) / 3**0.5 + 1) / 2  # in [0, 1)
    ids = 1 + (unit * (vocab - 3)).long().clamp(max=vocab - 4)
    for row, ends in zip(ids, [length - 1, *(3 + i % (length - 4) for i in range(1, count))]):
        row[0], row[ends] = vocab - 2, vocab - 1
        row[ends + 1 :] = 0
    return ids
