"""Algorithms of pre-training."""

from .eva_pretrainer import EVAPretrainer

__all__ = ['EVAPretrainer']
