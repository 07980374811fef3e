"""EVA-02-CLIP-B/16: image tower of 86 M parameters, text tower of 63 M."""

_base_ = '../eva_clip.py'

model = dict(
    embed_dims=512,
    backbone=dict(arch='eva02-clip-base'),
    text=dict(arch='clip-base-text'),
)
