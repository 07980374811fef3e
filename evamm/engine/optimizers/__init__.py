"""Optimizer wrappers and their constructors."""

from .amp_optim_wrapper import AmpOptimWrapper
from .layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ['AmpOptimWrapper', 'LayerDecayOptimWrapperConstructor']
