"""Trunk without a classifier: `model.extract_feat(images)` gives one vector per image."""

data_preprocessor = dict(
    mean=[122.7709383, 116.7460125, 104.09373615],
    std=[68.5005327, 66.6321579, 70.32316305],
    to_rgb=True,
)

model = dict(
    type='ImageClassifier',
    backbone=dict(type='evamm.EVAViT', out_type='avg_featmap'),
    neck=None,
    head=None,
)
