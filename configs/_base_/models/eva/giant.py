"""EVA-01-g and the EVA-01-CLIP-g image tower: 40 blocks of width 1408, 1.0 B parameters."""

_base_ = '../eva_classifier.py'

model = dict(backbone=dict(arch='eva-giant'), head=dict(in_channels=1408))
