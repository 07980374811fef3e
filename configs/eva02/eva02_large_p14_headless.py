"""EVA-02-L trunk, patch 14, pre-trained by masked image modelling.

For: `eva02_L_pt_in21k_p14` and `eva02_L_pt_m38m_p14` (Merged-38M) of
EVA-02/asuka/README.md.
Use: `evamm.get_model(name, pretrained=True).extract_feat(images)`.
"""

_base_ = [
    '../_base_/models/eva_headless.py',
    '../_base_/datasets/imagenet_224_test.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(backbone=dict(arch='eva02-large', img_size=224))
