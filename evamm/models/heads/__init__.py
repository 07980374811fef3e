"""Heads."""

from .clip_target_head import CLIPTargetHead
from .linear_probe_head import LinearProbeHead

__all__ = ['CLIPTargetHead', 'LinearProbeHead']
