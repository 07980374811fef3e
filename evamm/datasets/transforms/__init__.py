"""Image transforms."""

from .crop_border import CropBorder
from .flip import RandomFlip
from .loading import LoadImageFromFile
from .masking import BlockMasking, EvenMasking, RandomMasking
from .packing import PackInputs
from .rand_augment import RandAugment
from .resize import RandomResizedCrop, ResizeEdge

__all__ = [
    'BlockMasking',
    'CropBorder',
    'EvenMasking',
    'LoadImageFromFile',
    'PackInputs',
    'RandAugment',
    'RandomFlip',
    'RandomMasking',
    'RandomResizedCrop',
    'ResizeEdge',
]
