"""Metrics and evaluators."""

from .metrics import RealAccuracy, SubsetAccuracy
from .robustness_table import ROBUSTNESS_SETS, format_robustness_table

__all__ = ['ROBUSTNESS_SETS', 'RealAccuracy', 'SubsetAccuracy', 'format_robustness_table']
