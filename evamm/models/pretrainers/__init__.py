"""Algorithms of pre-training."""

from .eva_pretrainer import EVAPretrainer
from .mae_pretrainer import MAEPretrainer

__all__ = ['EVAPretrainer', 'MAEPretrainer']
