"""Operators of torchvision that are compiled for a GPU.

In plain PyTorch some operators wait for the device many times, to read sizes that the next step
needs; a kernel does not.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache
def compiled(name: str, device_type: str) -> Callable[..., Tensor] | None:
    """`torch.ops.torchvision.NAME`, if the release was made for this torch and has it for a GPU.

    None on a CPU, where plain PyTorch computes the same bits with every installation.
    """
    if device_type != 'cuda':
        return None
    import torchvision  # noqa: F401  loads its operators

    # Some are declared though they have not loaded, see `evamm.compat.torchvision_schemas`.
    if not hasattr(torch.ops.torchvision, name):
        return None
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f'torchvision::{name}', 'CUDA'):
        return None
    return getattr(torch.ops.torchvision, name)
