"""Random numbers that depend on where they are used, not on what was drawn before."""

import hashlib
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*numbers: int) -> int:
    """A 63-bit seed from integers; any change of any of them gives an unrelated one."""
    text = struct.pack(f'<{len(numbers)}q', *numbers)
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), 'little') >> 1


def seed_generators(seed: int) -> None:
    """Seed Python, NumPy and torch on the CPU; devices keep their generators."""
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
    # torch.manual_seed would reach into the generators of all devices.
    torch.default_generator.manual_seed(seed)


def get_generators() -> tuple:
    """State of the three CPU generators."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def set_generators(states: tuple) -> None:
    """Set the three CPU generators to states of :func:`get_generators`."""
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


@contextmanager
def preserved_generators() -> Iterator[None]:
    """Give the CPU generators back as they were."""
    states = get_generators()
    try:
        yield
    finally:
        set_generators(states)
