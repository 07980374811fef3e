"""Metrics."""

from .real_accuracy import RealAccuracy
from .retrieval_recall import RetrievalRecall
from .subset_accuracy import SubsetAccuracy

__all__ = ['RealAccuracy', 'RetrievalRecall', 'SubsetAccuracy']
