"""EVA-02-CLIP-B/16 image tower without its projection.

For: `EVA02_CLIP_B_psz16_s8B` of EVA-CLIP/README.md.
Use: `evamm.get_model(name, pretrained=True).extract_feat(images)`: the class token.
"""

_base_ = [
    '../_base_/models/eva_clip_headless.py',
    '../_base_/datasets/imagenet_224_test.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(arch='eva02-clip-base', img_size=224))
