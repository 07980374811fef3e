"""EVA-01-g trunk, pre-trained with patch 14, patch kernel resized to 16.

For: `eva_psz14to16` of EVA-01/eva/README.md.
Use: `evamm.get_model(name, pretrained=True).extract_feat(images)`.
"""

_base_ = [
    '../_base_/models/eva_headless.py',
    '../_base_/datasets/imagenet_224_test.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(arch='eva-giant', patch_size=16, img_size=224))
