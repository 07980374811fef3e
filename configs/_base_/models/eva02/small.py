"""EVA-02-S: 12 blocks of width 384, 22 M parameters."""

_base_ = '../eva_classifier.py'

model = dict(backbone=dict(arch='eva02-small'), head=dict(in_channels=384))
