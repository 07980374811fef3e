"""State of the random number generators of one process, as tensors and plain values."""

import random

import numpy as np
import torch


def get_rng_state() -> dict:
    """Generators of Python, NumPy, torch (CPU) and, where in use, every CUDA device.

    Returns:
        A dict that can be saved and read without unpickling code.
    """
    name, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        'python': random.getstate(),
        'numpy': (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict) -> None:
    """Set the generators to a state of :func:`get_rng_state`.

    CUDA generators are left alone if the number of devices has changed.
    """
    version, internal, gauss = state['python']
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state['numpy']
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state['torch'].cpu())
    cuda = state.get('cuda', [])
    if cuda and torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in cuda])
