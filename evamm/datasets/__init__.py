"""Datasets, transforms and samplers."""

from .collate import collate_pairs
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
    'collate_pairs',
    'get_tokenizer',
]
