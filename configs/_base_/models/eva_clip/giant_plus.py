"""EVA-01-CLIP-g/14+: image tower of 1.01 B parameters, text tower of 354 M."""

_base_ = '../eva_clip.py'

model = dict(
    embed_dims=1024,
    backbone=dict(arch='eva-clip-giant'),
    text=dict(arch='clip-huge-text'),
)
