"""Learning-rate schedules."""

from .warmup_cosine import WarmupCosineLR, warmup_cosine

__all__ = ['WarmupCosineLR', 'warmup_cosine']
