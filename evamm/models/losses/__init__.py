"""Losses."""

from .contrastive import ContrastiveLoss
from .sigmoid import SigmoidLoss

__all__ = ['ContrastiveLoss', 'SigmoidLoss']
