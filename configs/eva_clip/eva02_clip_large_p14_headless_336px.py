"""EVA-02-CLIP-L/14 image tower at 336 pixels without its projection.

For: `EVA02_CLIP_L_336_psz14_s6B` of EVA-CLIP/README.md.
Use: `evamm.get_model(name, pretrained=True).extract_feat(images)`: the class token.
"""

_base_ = [
    '../_base_/models/eva_clip_headless.py',
    '../_base_/datasets/imagenet_336_test.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(arch='eva02-clip-large', img_size=336))
