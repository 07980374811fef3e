"""Real handwritten digits in the standard on-disk format of every task.

One file per task; each adds a ``write_<task>(root, seed)`` to :data:`TASKS`.
"""

from .captions import write_captions
from .classification import write_classification
from .detection import write_detection
from .scene_classes import write_scene_classes
from .source import CLASS_NAMES, DigitsUnavailableError, load_digits, stratified_split

TASKS = {
    'captions': write_captions,
    'classification': write_classification,
    'detection': write_detection,
    'scene_classes': write_scene_classes,
}

__all__ = [
    'CLASS_NAMES',
    'TASKS',
    'DigitsUnavailableError',
    'load_digits',
    'stratified_split',
    'write_captions',
    'write_classification',
    'write_detection',
    'write_scene_classes',
]
