"""Hooks of the training loop."""

from .checkpoint import CheckpointHook
from .clamp_logit_scale import ClampLogitScaleHook
from .compile_blocks import CompileBlocksHook
from .dataset_meta import DatasetMetaHook
from .ema import EMAHook
from .knn import KNNHook
from .linear_probe import LinearProbeHook
from .runtime_info import RuntimeInfoHook
from .throughput import ThroughputHook
from .val_rng import ValRNGHook

__all__ = [
    'CheckpointHook',
    'ClampLogitScaleHook',
    'CompileBlocksHook',
    'DatasetMetaHook',
    'EMAHook',
    'KNNHook',
    'LinearProbeHook',
    'RuntimeInfoHook',
    'ThroughputHook',
    'ValRNGHook',
]
