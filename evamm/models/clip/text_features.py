"""Features of many texts."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def encode_tokens(
    model: nn.Module,
    tokens: Tensor,
    batch_size: int = 256,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """Encodes texts in batches of like length.

    `EVACLIP.encode_text` cuts a batch behind its longest text, so that short texts among
    themselves cost a fraction of what they cost beside a long one.

    Args:
        model: An `EVACLIP`, in evaluation mode.
        tokens: Ids of the texts on the CPU, [n, L]; the end mark has the highest id.
        batch_size: Texts per pass.
        on_batch: Called after each batch with the number of its texts.

    Returns:
        Normalised features, float32 [n, E], on the model's device.
    """
    if batch_size < 1:
        raise ValueError(f'batch_size must be at least 1, found {batch_size}.')
    device = next(model.text.parameters()).device
    features = torch.empty(len(tokens), model.embed_dims, device=device)
    if len(tokens) == 0:
        return features
    lengths = tokens.argmax(dim=1)  # [n]
    for chosen in lengths.argsort().split(batch_size):
        features[chosen.to(device)] = model.encode_text(tokens[chosen], normalize=True)
        if on_batch is not None:
            on_batch(len(chosen))
    return features
