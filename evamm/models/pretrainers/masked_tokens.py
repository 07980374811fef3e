"""Masks of a batch as indices, made on the host."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskedTokens:
    """Which patches of a batch are masked.

    Args:
        mask: True where a patch is masked, bool [B, N], on the device.
        rows: The masked ones in [B * N], in order, int64 [M], on the device.
        host_rows: The same on the host.
        counts: How many there are in each image; B integers on the host.
    """

    mask: Tensor
    rows: Tensor
    host_rows: np.ndarray
    counts: tuple[int, ...]

    def rows_behind(self, prefix_tokens: int) -> Tensor:
        """Rows in [B * (P + N)]: each image begins with P tokens that are no patches."""
        if not prefix_tokens:
            return self.rows
        return self.rows + prefix_tokens * (1 + self.rows // self.mask.shape[1])

    def everywhere(self) -> 'MaskedTokens':
        """All patches of the batch, as if all were masked."""
        images, patches = self.mask.shape
        return masked_tokens(np.ones((images, patches), bool), self.mask.device)


def to_device(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copies small arrays to a device; CUDA copies them when it gets there, nobody waits."""
    tensor = torch.as_tensor(values)
    if device.type != 'cuda' or tensor.device.type != 'cpu':
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def stack_masks(data_samples: Sequence | None) -> np.ndarray:
    """Masks of a batch, bool [B, N], on the host.

    Indexing with a mask on a GPU waits for the GPU, because the size of the result is not known
    before. Here it is.

    Args:
        data_samples: Elements with ``mask``: bool [h, w], a NumPy array (as
            :class:`evamm.PackMIMInputs` leaves it) or a tensor.

    Raises:
        ValueError: A sample has no mask, or the grids differ.
    """
    if not data_samples or any('mask' not in sample for sample in data_samples):
        raise ValueError(
            'masked image modelling needs data_samples with `mask`: put evamm.BlockMasking (or '
            'another mask) and evamm.PackMIMInputs into the pipeline.'
        )
    masks = [sample.mask for sample in data_samples]
    masks = [mask.cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask) for mask in masks]
    shapes = sorted({mask.shape for mask in masks})
    if len(shapes) > 1:
        raise ValueError(f'the masks of a batch must have one shape, found {shapes}.')
    return np.stack(masks).reshape(len(masks), -1).astype(bool, copy=False)


def masked_tokens(masks: np.ndarray, device: torch.device) -> MaskedTokens:
    """Indices of the masked patches.

    Args:
        masks: bool [B, N], on the host.
        device: Where the indices go.
    """
    rows = np.flatnonzero(masks)
    return MaskedTokens(
        mask=to_device(masks, device),
        rows=to_device(rows, device),
        host_rows=rows,
        counts=tuple(int(count) for count in masks.sum(axis=1)),
    )
