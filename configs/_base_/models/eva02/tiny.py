"""EVA-02-Ti: 12 blocks of width 192, 5.7 M parameters."""

_base_ = '../eva_classifier.py'

model = dict(backbone=dict(arch='eva02-tiny'), head=dict(in_channels=192))
