"""Every EVA-CLIP pair: image trunk with a class token, linear head, text tower, one joint space.

A base that picks the architectures inherits this one.
"""

# OpenAI CLIP's statistics for pixels from 0 to 255.
data_preprocessor = dict(
    type='ClsDataPreprocessor',
    mean=[122.7709383, 116.7460125, 104.09373615],
    std=[68.5005327, 66.6321579, 70.32316305],
    to_rgb=True,
)

model = dict(
    type='evamm.EVACLIP',
    backbone=dict(type='evamm.EVAViT', img_size=224, out_type='cls_token', with_cp=True),
    text=dict(type='evamm.CLIPTextTransformer', with_cp=True),
    # Every process compares its own images and texts with those of all processes.
    loss=dict(type='evamm.ContrastiveLoss', local_loss=True, gather_with_grad=True),
    # The published protocol: 1000 class names in 80 sentences each, logits times 100.
    test_cfg=dict(type='zero_shot', classes='imagenet', templates='openai', logit_scale=100.0),
)
