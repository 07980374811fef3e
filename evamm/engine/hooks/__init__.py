"""Hooks of the training loop."""

from .checkpoint import CheckpointHook
from .compile_blocks import CompileBlocksHook
from .ema import EMAHook
from .runtime_info import RuntimeInfoHook
from .throughput import ThroughputHook
from .val_rng import ValRNGHook

__all__ = [
    'CheckpointHook',
    'CompileBlocksHook',
    'EMAHook',
    'RuntimeInfoHook',
    'ThroughputHook',
    'ValRNGHook',
]
