"""Masked image modelling: the trunk predicts a teacher's features of masked patches.

`eva_mim_openai_clip.py` (EVA-01) and `eva_mim_eva_clip.py` (EVA-02) add the teacher.
"""

# OpenAI CLIP's statistics, for the student and for its CLIP teacher; pixels from 0 to 255.
data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    mean=[122.7709383, 116.7460125, 104.09373615],
    std=[68.5005327, 66.6321579, 70.32316305],
    to_rgb=True,
    non_blocking=True,
)

model = dict(
    type='evamm.EVAPretrainer',
    # Trunk norm, mask token and random initialisation of pre-training are filled in.
    backbone=dict(type='evamm.EVAViT', img_size=224),
    head=dict(type='evamm.CLIPTargetHead'),
)
