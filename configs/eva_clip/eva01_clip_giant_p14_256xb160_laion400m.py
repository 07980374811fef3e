"""EVA-01-CLIP-g/14, trained on LAION-400M.

Reproduces: `EVA01_CLIP_g_14_psz14_s11B` of EVA-CLIP/README.md.
Expected: 78.5 % zero-shot top-1 on ImageNet-1K, 68.5 % text-to-image recall at 5 on COCO.
Hardware: 256 GPUs (official run: A100 of 40 GB, float16, bfloat16 here).
Command, on each of 32 machines of 8 GPUs: NNODES=32 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva_clip/eva01_clip_giant_p14_256xb160_laion400m.py 8
Total batch: 256 GPUs x 160 pairs = 40960.
Steps: 11 billion pairs / 40960 = 268555; 977 for 40 million pairs, the official epoch.

The command of this run is not published. Known are the card (files, data, batch, pairs seen,
float16) and the report of the run (drop path 0.4, validation every tenth of LAION-400M); rates and
layer decay are those of EVA-01-CLIP-g/14+, whose command is.
"""

_base_ = [
    '../_base_/models/eva_clip/giant.py',
    '../_base_/datasets/laion400m_224.py',
    '../_base_/datasets/imagenet_zero_shot_224.py',
    '../_base_/schedules/eva_clip.py',
    '../_base_/default_runtime_clip.py',
]

model = dict(
    backbone=dict(
        drop_path_rate=0.4,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/QuanSun/EVA-CLIP/resolve/main/EVA01_g_psz14.pt',
        ),
    ),
    text=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint=(
                'https://openaipublic.azureedge.net/clip/models/'
                'b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt'
            ),
        ),
    ),
)

train_dataloader = dict(batch_size=160)
optim_wrapper = dict(
    paramwise_cfg=dict(
        towers=dict(
            visual=dict(layer_decay_rate=0.85),
        )
    )
)
train_cfg = dict(max_iters=268555, val_interval=977)
default_hooks = dict(checkpoint=dict(interval=977))
auto_scale_lr = dict(base_batch_size=40960)
