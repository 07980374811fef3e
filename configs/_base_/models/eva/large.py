"""EVA-L: 24 blocks of width 1024, 304 M parameters, a bias on q, k and v."""

_base_ = '../eva_classifier.py'

model = dict(backbone=dict(arch='eva-large'), head=dict(in_channels=1024))
