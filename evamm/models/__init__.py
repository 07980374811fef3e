"""The trunk and everything built on it."""

from .backbones import EVAViT
from .clip import EVACLIP, CLIPTextTransformer
from .heads import CLIPTargetHead, LinearProbeHead
from .losses import ContrastiveLoss, FederatedLoss, SigmoidLoss
from .necks import SimpleFeaturePyramid
from .pretrainers import EVAPretrainer, MAEPretrainer
from .teachers import BackboneTeacher, CLIPTeacher, OpenCLIPTeacher

__all__ = [
    'EVACLIP',
    'CLIPTextTransformer',
    'ContrastiveLoss',
    'EVAViT',
    'FederatedLoss',
    'SigmoidLoss',
    'SimpleFeaturePyramid',
    'CLIPTargetHead',
    'LinearProbeHead',
    'EVAPretrainer',
    'MAEPretrainer',
    'BackboneTeacher',
    'CLIPTeacher',
    'OpenCLIPTeacher',
]
