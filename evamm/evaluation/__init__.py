"""Metrics and evaluators."""

from .metrics import RealAccuracy, SubsetAccuracy

__all__ = ['RealAccuracy', 'SubsetAccuracy']
