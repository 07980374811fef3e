"""EVA-02-CLIP-L/14 image tower without its projection.

For: `EVA02_CLIP_L_psz14_s4B` of EVA-CLIP/README.md.
Use: `evamm.get_model(name, pretrained=True).extract_feat(images)`: the class token.
"""

_base_ = [
    '../_base_/models/eva_clip_headless.py',
    '../_base_/datasets/imagenet_224_test.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(arch='eva02-clip-large', img_size=224))
