"""Hooks of the training loop."""

from .checkpoint import CheckpointHook
from .ema import EMAHook
from .val_rng import ValRNGHook

__all__ = ['CheckpointHook', 'EMAHook', 'ValRNGHook']
