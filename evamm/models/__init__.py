"""The trunk and everything built on it."""

from .backbones import EVAViT

__all__ = ['EVAViT']
