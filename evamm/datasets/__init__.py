"""Datasets, transforms and samplers."""

from .image_list import ImageList
from .image_text import CaptionRetrieval, ImageTextMixture, ImageTextShards, ImageTextTable
from .robustness import ImageNetA, ImageNetR, ImageNetSketch, ImageNetV2, ObjectNet
from .samplers import RepeatFactorSampler, ShardSampler
from .tokenizer import get_tokenizer
from .transforms import CropBorder

__all__ = [
    'CaptionRetrieval',
    'CropBorder',
    'ImageList',
    'ImageNetA',
    'ImageNetR',
    'ImageNetSketch',
    'ImageNetV2',
    'ImageTextMixture',
    'ImageTextShards',
    'ImageTextTable',
    'ObjectNet',
    'RepeatFactorSampler',
    'ShardSampler',
    'get_tokenizer',
]
