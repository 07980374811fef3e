"""EVA-L trunk, patch 14, MAE-style pre-training on ImageNet-21K with EVA-CLIP targets.

For: `eva_l_psz14` of EVA-01/eva/README.md.
Use: `evamm.get_model(name, pretrained=True).extract_feat(images)`.
"""

_base_ = [
    '../_base_/models/eva_headless.py',
    '../_base_/datasets/imagenet_224_test.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(arch='eva-large', img_size=224))
