"""EVA-01-g trunk, patch 14, pre-trained by masked image modelling on merged-30M.

For: `eva_psz14` of EVA-01/eva/README.md.
Use: `evamm.get_model(name, pretrained=True).extract_feat(images)`.
"""

_base_ = [
    '../_base_/models/eva_headless.py',
    '../_base_/datasets/imagenet_224_test.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(arch='eva-giant', img_size=224))
