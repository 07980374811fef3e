"""Data of object detection and instance segmentation."""

from .coco import CocoDataset
from .jitter import LargeScaleJitter, RandomDetFlip
from .loading import LoadDetAnnotations
from .lvis import LVISV1Dataset
from .objects365 import Objects365V2Dataset
from .resize import ResizeLongestEdge

__all__ = [
    'CocoDataset',
    'LVISV1Dataset',
    'LargeScaleJitter',
    'LoadDetAnnotations',
    'Objects365V2Dataset',
    'RandomDetFlip',
    'ResizeLongestEdge',
]
