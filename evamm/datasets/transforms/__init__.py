"""Image transforms."""

from .crop_border import CropBorder
from .flip import RandomFlip
from .loading import LoadImageFromFile
from .packing import PackInputs
from .rand_augment import RandAugment
from .resize import RandomResizedCrop, ResizeEdge

__all__ = [
    'CropBorder',
    'LoadImageFromFile',
    'PackInputs',
    'RandAugment',
    'RandomFlip',
    'RandomResizedCrop',
    'ResizeEdge',
]
