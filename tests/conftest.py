"""Rules for every test: no network, known random numbers, no scope left behind by another test."""

import random
import socket
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import evamm  # noqa: F401  the cures come before any test imports torchvision, mmcv or mmdet

_LOCAL = ('127.0.0.1', '::1', 'localhost', '0.0.0.0')


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails at once, with the address in the message."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in _LOCAL:
            raise AssertionError(f'a test tried to connect to {address[0]}:{address[1]}')
        connect(self, address)

    monkeypatch.setattr(socket.socket, 'connect', guarded)


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_default_scope() -> Iterator[None]:
    """The default scope of mmengine is global: a test may not live on one that another has set."""
    yield
    if 'mmengine.registry.default_scope' in sys.modules:
        sys.modules['mmengine.registry.default_scope'].DefaultScope._instance_dict.clear()
