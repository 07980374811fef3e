"""Metrics and evaluators."""

from .metrics import MIMCosine, RealAccuracy, RetrievalRecall, SubsetAccuracy
from .robustness_table import ROBUSTNESS_SETS, format_robustness_table
from .zero_shot_table import BENCHMARKS, format_zero_shot_table

__all__ = [
    'BENCHMARKS',
    'ROBUSTNESS_SETS',
    'MIMCosine',
    'RealAccuracy',
    'RetrievalRecall',
    'SubsetAccuracy',
    'format_robustness_table',
    'format_zero_shot_table',
]
