"""EVA-02-CLIP-E/14 (and E/14+) image tower without its projection.

For: `EVA02_CLIP_E_psz14_s4B` and `EVA02_CLIP_E_psz14_plus_s9B` of EVA-CLIP/README.md.
Use: `evamm.get_model(name, pretrained=True).extract_feat(images)`: the class token.
"""

_base_ = [
    '../_base_/models/eva_clip_headless.py',
    '../_base_/datasets/imagenet_224_test.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(arch='eva02-clip-enormous', img_size=224))
