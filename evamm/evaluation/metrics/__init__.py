"""Metrics."""

from .mim_cosine import MIMCosine
from .real_accuracy import RealAccuracy
from .retrieval_recall import RetrievalRecall
from .subset_accuracy import SubsetAccuracy

__all__ = ['MIMCosine', 'RealAccuracy', 'RetrievalRecall', 'SubsetAccuracy']
