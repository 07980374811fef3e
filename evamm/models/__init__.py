"""The trunk and everything built on it."""

from .backbones import EVAViT
from .clip import EVACLIP, CLIPTextTransformer
from .losses import ContrastiveLoss, SigmoidLoss

__all__ = ['EVACLIP', 'CLIPTextTransformer', 'ContrastiveLoss', 'EVAViT', 'SigmoidLoss']
