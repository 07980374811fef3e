"""Metrics and evaluators."""

from .metrics import MIMCosine, RealAccuracy, RetrievalRecall, SubsetAccuracy
from .robustness_table import ROBUSTNESS_SETS, format_robustness_table

__all__ = [
    'ROBUSTNESS_SETS',
    'MIMCosine',
    'RealAccuracy',
    'RetrievalRecall',
    'SubsetAccuracy',
    'format_robustness_table',
]
