"""EVA-02-L: 24 blocks of width 1024, 304 M parameters."""

_base_ = '../eva_classifier.py'

model = dict(backbone=dict(arch='eva02-large'), head=dict(in_channels=1024))
