"""Metrics."""

from .real_accuracy import RealAccuracy
from .subset_accuracy import SubsetAccuracy

__all__ = ['RealAccuracy', 'SubsetAccuracy']
