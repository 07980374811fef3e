"""Classifier of every official EVA recipe: mean of the patch tokens, LayerNorm, linear layer.

A base that picks the architecture inherits this one.
"""

# OpenAI CLIP's statistics, which all EVA classifiers use, for pixels from 0 to 255.
data_preprocessor = dict(
    num_classes=1000,
    mean=[122.7709383, 116.7460125, 104.09373615],
    std=[68.5005327, 66.6321579, 70.32316305],
    to_rgb=True,
)

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='evamm.EVAViT',
        out_type='avg_featmap',
        # Official fine-tuning lets no gradient through to the patch projection.
        freeze_patch_embed=True,
    ),
    neck=None,
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        topk=(1, 5),
        # Official: truncated normal 0.02, then scaled by 0.001.
        init_cfg=dict(type='TruncNormal', layer='Linear', std=2e-5),
    ),
)
