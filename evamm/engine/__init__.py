"""Runner, hooks, optimizers and schedules."""

from .flop_meter import FlopMeter
from .hooks import CheckpointHook, EMAHook, RuntimeInfoHook, ThroughputHook, ValRNGHook
from .loops import EpochBasedTrainLoop, IterBasedTrainLoop
from .optimizers import AmpOptimWrapper, LayerDecayOptimWrapperConstructor
from .runner import EVARunner
from .schedulers import WarmupCosineLR

__all__ = [
    'AmpOptimWrapper',
    'CheckpointHook',
    'EMAHook',
    'EVARunner',
    'EpochBasedTrainLoop',
    'FlopMeter',
    'IterBasedTrainLoop',
    'LayerDecayOptimWrapperConstructor',
    'RuntimeInfoHook',
    'ThroughputHook',
    'ValRNGHook',
    'WarmupCosineLR',
]
