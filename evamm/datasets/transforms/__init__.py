"""Image transforms."""

from .crop_border import CropBorder
from .flip import RandomFlip
from .load_teacher_features import LoadTeacherFeatures
from .loading import LoadImageFromFile
from .masking import BlockMasking, EvenMasking, RandomMasking
from .mim_packing import PackMIMInputs
from .packing import PackInputs, PackPairInputs
from .rand_augment import RandAugment
from .resize import RandomResizedCrop, ResizeEdge
from .seeded_crops import SeededCrops
from .text import ChooseText, TokenizeText
from .two_size_crop import TwoSizeRandomResizedCrop

__all__ = [
    'BlockMasking',
    'ChooseText',
    'CropBorder',
    'EvenMasking',
    'LoadImageFromFile',
    'LoadTeacherFeatures',
    'PackInputs',
    'PackMIMInputs',
    'PackPairInputs',
    'RandAugment',
    'RandomFlip',
    'RandomMasking',
    'RandomResizedCrop',
    'ResizeEdge',
    'SeededCrops',
    'TokenizeText',
    'TwoSizeRandomResizedCrop',
]
