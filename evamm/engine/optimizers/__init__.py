"""Optimizers, their wrappers and constructors."""

from .amp_optim_wrapper import AmpOptimWrapper
from .lamb import LAMB
from .lars import LARS
from .layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ['LAMB', 'LARS', 'AmpOptimWrapper', 'LayerDecayOptimWrapperConstructor']
