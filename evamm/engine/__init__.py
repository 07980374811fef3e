"""Runner, hooks, optimizers and schedules."""

from .flop_meter import FlopMeter
from .hooks import (
    CheckpointHook,
    ClampLogitScaleHook,
    CompileBlocksHook,
    EMAHook,
    KNNHook,
    LinearProbeHook,
    RuntimeInfoHook,
    ThroughputHook,
    ValRNGHook,
)
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .optimizers import LAMB, LARS, AmpOptimWrapper, LayerDecayOptimWrapperConstructor
from .runner import EVARunner
from .schedulers import WarmupCosineLR
from .strategies import FSDP2

__all__ = [
    'LAMB',
    'LARS',
    'AmpOptimWrapper',
    'CheckpointHook',
    'ClampLogitScaleHook',
    'CompileBlocksHook',
    'EMAHook',
    'EVARunner',
    'EpochBasedTrainLoop',
    'FSDP2',
    'FlopMeter',
    'IterBasedTrainLoop',
    'KNNHook',
    'LayerDecayOptimWrapperConstructor',
    'LinearProbeHook',
    'RuntimeInfoHook',
    'ThroughputHook',
    'ValRNGHook',
    'WarmupCosineLR',
]
