"""EVA-02-B: 12 blocks of width 768, 86 M parameters."""

_base_ = '../eva_classifier.py'

model = dict(backbone=dict(arch='eva02-base'), head=dict(in_channels=768))
