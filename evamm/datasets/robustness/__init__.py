"""Test sets that ask how well an ImageNet-1K classifier holds up on other images."""

from .folders import ImageNetA, ImageNetR, ImageNetSketch, ImageNetV2
from .objectnet import ObjectNet

__all__ = ['ImageNetA', 'ImageNetR', 'ImageNetSketch', 'ImageNetV2', 'ObjectNet']
