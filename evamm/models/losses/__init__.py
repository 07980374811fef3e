"""Losses."""

from .contrastive import ContrastiveLoss
from .federated import FederatedLoss
from .sigmoid import SigmoidLoss

__all__ = ['ContrastiveLoss', 'FederatedLoss', 'SigmoidLoss']
