"""Datasets, transforms and samplers."""

from .image_text import ImageTextMixture, ImageTextShards
from .robustness import ImageNetA, ImageNetR, ImageNetSketch, ImageNetV2, ObjectNet
from .samplers import ShardSampler
from .tokenizer import get_tokenizer
from .transforms import CropBorder

__all__ = [
    'CropBorder',
    'ImageNetA',
    'ImageNetR',
    'ImageNetSketch',
    'ImageNetV2',
    'ImageTextMixture',
    'ImageTextShards',
    'ObjectNet',
    'ShardSampler',
    'get_tokenizer',
]
