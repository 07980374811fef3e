"""Datasets, transforms and samplers."""

from .robustness import ImageNetA, ImageNetR, ImageNetSketch, ImageNetV2, ObjectNet
from .tokenizer import get_tokenizer
from .transforms import CropBorder

__all__ = [
    'CropBorder',
    'ImageNetA',
    'ImageNetR',
    'ImageNetSketch',
    'ImageNetV2',
    'ObjectNet',
    'get_tokenizer',
]
