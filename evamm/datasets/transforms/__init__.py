"""Image transforms."""

from .crop_border import CropBorder
from .flip import RandomFlip
from .loading import LoadImageFromFile
from .rand_augment import RandAugment
from .resize import RandomResizedCrop, ResizeEdge

__all__ = [
    'CropBorder',
    'LoadImageFromFile',
    'RandAugment',
    'RandomFlip',
    'RandomResizedCrop',
    'ResizeEdge',
]
