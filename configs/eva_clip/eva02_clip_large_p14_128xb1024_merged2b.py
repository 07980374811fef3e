"""EVA-02-CLIP-L/14, trained on Merged-2B.

Reproduces: `EVA02_CLIP_L_psz14_s4B` of EVA-CLIP/README.md.
Expected: 79.8 % zero-shot top-1 on ImageNet-1K, 71.2 % text-to-image recall at 5 on COCO.
Hardware: 128 GPUs (official run: A100 of 40 GB, float16, bfloat16 here).
Command, on each of 16 machines of 8 GPUs: NNODES=16 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva_clip/eva02_clip_large_p14_128xb1024_merged2b.py 8
Total batch: 128 GPUs x 1024 pairs = 131072.
Steps: 4 billion pairs / 131072 = 30518; 305 for 40 million pairs, the official epoch.
"""

_base_ = [
    '../_base_/models/eva_clip/large.py',
    '../_base_/datasets/merged2b_224.py',
    '../_base_/datasets/imagenet_zero_shot_224.py',
    '../_base_/schedules/eva_clip.py',
    '../_base_/default_runtime_clip.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/QuanSun/EVA-CLIP/resolve/main/EVA02_L_psz14.pt',
            # The trunk of masked image modelling has no norm before the output projection.
            allow_missing=['blocks.*.attn.norm.*'],
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

train_dataloader = dict(batch_size=1024)
optim_wrapper = dict(
    paramwise_cfg=dict(
        towers=dict(
            visual=dict(layer_decay_rate=0.85),
        )
    )
)
train_cfg = dict(max_iters=30518, val_interval=305)
default_hooks = dict(checkpoint=dict(interval=305))
auto_scale_lr = dict(base_batch_size=131072)
