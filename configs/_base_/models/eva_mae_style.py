"""The plain ViT-B/16 of mmpretrain's `eva-mae-style`, with evamm's trunk.

ImageNet's statistics, as in all its configs; pixels from 0 to 255.
"""

data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)

vit_base = dict(
    type='evamm.EVAViT',
    arch=dict(
        embed_dims=768,
        depth=12,
        num_heads=12,
        ffn='mlp',
        qkv_bias='qkv',
        rope=False,
        patch_size=16,
    ),
    img_size=224,
    patch_size=16,
)

# The weights that mmpretrain releases; put your own checkpoint here after pre-training.
pretrained = dict(
    type='Pretrained',
    checkpoint=(
        'https://download.openmmlab.com/mmselfsup/1.x/eva/'
        'eva-mae-style_vit-base-p16_16xb256-coslr-400e_in1k/'
        'eva-mae-style_vit-base-p16_16xb256-coslr-400e_in1k_20221226-26d90f07.pth'
    ),
)
