"""EVA-02-CLIP-L/14: image tower of 304 M parameters, text tower of 124 M."""

_base_ = '../eva_clip.py'

model = dict(
    embed_dims=768,
    backbone=dict(arch='eva02-clip-large'),
    text=dict(arch='clip-large-text'),
)
