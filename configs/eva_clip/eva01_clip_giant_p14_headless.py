"""EVA-01-CLIP-g/14 (and g/14+) image tower without its projection.

For: `EVA01_CLIP_g_14_psz14_s11B` and `EVA01_CLIP_g_14_plus_psz14_s11B` of EVA-CLIP/README.md.
Use: `evamm.get_model(name, pretrained=True).extract_feat(images)`: the class token.
"""

_base_ = [
    '../_base_/models/eva_clip_headless.py',
    '../_base_/datasets/imagenet_224_test.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(arch='eva-clip-giant', img_size=224))
