"""EVA-L: MAE with the features of EVA-01-CLIP-g/14 as targets."""

data_preprocessor = dict(
    type='SelfSupDataPreprocessor',
    mean=[122.7709383, 116.7460125, 104.09373615],
    std=[68.5005327, 66.6321579, 70.32316305],
    to_rgb=True,
    non_blocking=True,
)

model = dict(
    type='evamm.MAEPretrainer',
    backbone=dict(type='evamm.EVAViT', arch='eva-large', img_size=224),
    decoder=dict(embed_dims=512, depth=4, num_heads=16),
    teacher=dict(
        type='evamm.CLIPTeacher',
        arch='eva-clip-giant',
        embed_dims=1024,
        img_size=224,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/BAAI/EVA/resolve/main/eva_clip_psz14.pt',
        ),
    ),
)
