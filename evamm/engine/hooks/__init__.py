"""Hooks of the training loop."""

from .checkpoint import CheckpointHook
from .ema import EMAHook
from .runtime_info import RuntimeInfoHook
from .throughput import ThroughputHook
from .val_rng import ValRNGHook

__all__ = ['CheckpointHook', 'EMAHook', 'RuntimeInfoHook', 'ThroughputHook', 'ValRNGHook']
