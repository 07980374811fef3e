"""EVA-02-CLIP-E/14: image tower of 4.35 B parameters, text tower of 354 M."""

_base_ = '../eva_clip.py'

model = dict(
    embed_dims=1024,
    backbone=dict(arch='eva02-clip-enormous'),
    text=dict(arch='clip-huge-text'),
)
