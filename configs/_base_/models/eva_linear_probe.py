"""Linear probing: a frozen trunk, its class token, BatchNorm without weights, a linear layer.

A final config picks the trunk and freezes all of its blocks.
"""

data_preprocessor = dict(
    num_classes=1000,
    mean=[122.7709383, 116.7460125, 104.09373615],
    std=[68.5005327, 66.6321579, 70.32316305],
    to_rgb=True,
)

model = dict(
    type='ImageClassifier',
    backbone=dict(type='evamm.EVAViT', out_type='cls_token'),
    neck=None,
    head=dict(
        type='evamm.LinearProbeHead',
        num_classes=1000,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01),
    ),
)
