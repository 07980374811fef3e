"""Image transforms."""

from .crop_border import CropBorder

__all__ = ['CropBorder']
