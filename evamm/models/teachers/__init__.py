"""Frozen encoders whose features are the targets of masked image modelling."""

from .backbone_teacher import BackboneTeacher
from .base import Teacher
from .clip_teacher import CLIPTeacher
from .open_clip_teacher import OpenCLIPTeacher

__all__ = ['BackboneTeacher', 'CLIPTeacher', 'OpenCLIPTeacher', 'Teacher']
