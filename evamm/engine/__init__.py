"""Runner, hooks, optimizers and schedules."""

from .optimizers import AmpOptimWrapper, LayerDecayOptimWrapperConstructor
from .schedulers import WarmupCosineLR

__all__ = ['AmpOptimWrapper', 'LayerDecayOptimWrapperConstructor', 'WarmupCosineLR']
