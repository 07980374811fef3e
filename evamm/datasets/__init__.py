"""Datasets, transforms and samplers."""

from .robustness import ImageNetA, ImageNetR, ImageNetSketch, ImageNetV2, ObjectNet
from .transforms import CropBorder

__all__ = ['CropBorder', 'ImageNetA', 'ImageNetR', 'ImageNetSketch', 'ImageNetV2', 'ObjectNet']
