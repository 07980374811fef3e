"""Image-text models."""

from .eva_clip import EVACLIP
from .text_transformer import CLIPTextTransformer

__all__ = ['CLIPTextTransformer', 'EVACLIP']
