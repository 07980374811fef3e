"""Real handwritten digits in the standard on-disk format of every task.

One file per task; each adds a ``write_<task>(root, seed)`` to :data:`TASKS`.
"""

from .captions import write_captions
from .classification import write_classification
from .source import CLASS_NAMES, DigitsUnavailableError, load_digits, stratified_split

TASKS = {'captions': write_captions, 'classification': write_classification}

__all__ = [
    'CLASS_NAMES',
    'TASKS',
    'DigitsUnavailableError',
    'load_digits',
    'stratified_split',
    'write_captions',
    'write_classification',
]
