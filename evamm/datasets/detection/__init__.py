"""Data of object detection and instance segmentation."""

from .jitter import LargeScaleJitter, RandomDetFlip
from .loading import LoadDetAnnotations
from .resize import ResizeLongestEdge

__all__ = ['LargeScaleJitter', 'LoadDetAnnotations', 'RandomDetFlip', 'ResizeLongestEdge']
