"""Learning-rate schedules."""

from .warmup_cosine import WarmupCosineLR, warmup_cosine
from .warmup_multistep import WarmupMultiStepLR, warmup_multistep

__all__ = ['WarmupCosineLR', 'WarmupMultiStepLR', 'warmup_cosine', 'warmup_multistep']
