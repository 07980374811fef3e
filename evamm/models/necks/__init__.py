"""Necks: what stands between a trunk and the heads of a dense task."""

from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid']
