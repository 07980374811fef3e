"""Bytes that a training step keeps for its backward pass: by formula, or counted."""

from collections.abc import Callable
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evamm.models.variants import EVAArch


def saved_elements(arch: EVAArch) -> tuple[int, int]:
    """Numbers that one block keeps of one token for its backward pass.

    Returns:
        How many are float32 and how many bfloat16 under autocast.
    """
    dims, hidden = arch.embed_dims, arch.ffn_hidden_dims
    single = 2 * dims  # inputs of the two norms
    half = 6 * dims  # inputs of qkv and of the FFN, q, k, v, output of the attention
    if arch.ffn == 'swiglu':
        half += 3 * hidden  # both halves, input of the last product
        single += hidden * arch.ffn_norm  # input of the inner norm
    else:
        half += 2 * hidden
    single += dims * arch.attn_norm
    return single, half


def saved_bytes(arch: EVAArch, tokens: int) -> int:
    """Bytes that one block keeps of one image for its backward pass, under bfloat16 autocast."""
    single, half = saved_elements(arch)
    return tokens * (4 * single + 2 * half)


def position_bytes(arch: EVAArch, grid: tuple[int, int], window: int) -> int:
    """Bytes that decomposed relative positions add to one block of one image.

    Args:
        arch: Of the trunk.
        grid: Tokens of the image along height and width.
        window: Side of the windows; 0 for a block that attends to the whole image.
    """
    tokens = grid[0] * grid[1]
    if window:  # a matrix of all pairs within each window
        return 2 * arch.num_heads * tokens * window**2
    # Channels for every row and column in queries, keys, values and the result.
    return 2 * arch.num_heads * tokens * 4 * sum(grid)


def tower_bytes(depth: int, block: int, tokens: int, width: int, recomputes: bool) -> int:
    """Bytes that a tower keeps of one sample: every block's, or their inputs and one block's."""
    return depth * 4 * tokens * width + block if recomputes else depth * block


@contextmanager
def cuda_autocast() -> None:
    """Autocast to bfloat16 on fake tensors of the CPU, with norms in float32 as on CUDA."""
    layer_norm = F.layer_norm
    F.layer_norm = lambda x, *args, **kwargs: layer_norm(x.float(), *args, **kwargs)
    try:
        with torch.autocast('cpu', torch.bfloat16):
            yield
    finally:
        F.layer_norm = layer_norm


def kept_bytes(forward: Callable, *inputs: Tensor, owned: nn.Module) -> tuple[int, object]:
    """Bytes that a forward pass keeps for its backward pass, each storage once, and its result.

    Parameters of ``owned`` are not counted. Their copies in half precision are: the difference
    between two batches is free of them.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in owned.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in weights:
            kept[storage] = tensor  # which keeps it alive
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward(*inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()), result


def kept_bytes_of_one(forward: Callable, *inputs: Tensor, owned: nn.Module) -> tuple[int, object]:
    """What one sample more adds to :func:`kept_bytes`, and the result for one.

    Args:
        forward: Takes tensors whose first dimension is the batch.
        inputs: Of one sample.
        owned: The module that ``forward`` runs.
    """
    once, result = kept_bytes(forward, *inputs, owned=owned)
    pairs = [
        torch.cat((x, x)).detach().requires_grad_(x.requires_grad and x.is_leaf) for x in inputs
    ]
    twice, _ = kept_bytes(forward, *pairs, owned=owned)
    return twice - once, result
