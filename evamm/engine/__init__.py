"""Runner, hooks, optimizers and schedules."""

from .hooks import CheckpointHook, EMAHook, ValRNGHook
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
    'IterBasedTrainLoop',
    'LayerDecayOptimWrapperConstructor',
    'ValRNGHook',
    'WarmupCosineLR',
]
