"""EVA-01-CLIP-g/14+, trained on Merged-2B.

Reproduces: `EVA01_CLIP_g_14_plus_psz14_s11B` of EVA-CLIP/README.md.
Expected: 79.3 % zero-shot top-1 on ImageNet-1K, 74.0 % text-to-image recall at 5 on COCO.
Hardware: 112 GPUs (official run: A100 of 40 GB, float16, bfloat16 here).
Command, on each of 14 machines of 8 GPUs: NNODES=14 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva_clip/eva01_clip_giant_plus_p14_112xb1024_merged2b.py 8
Total batch: 112 GPUs x 1024 pairs = 114688.
Steps: 11 billion pairs / 114688 = 95913; 349 for 40 million pairs, the official epoch.

The published command ends after 4 billion pairs (100 x 40 million: train_cfg.max_iters=34878), the
card counts 11 billion; how the rest was trained is not published. Here one cosine covers all.
"""

_base_ = [
    '../_base_/models/eva_clip/giant_plus.py',
    '../_base_/datasets/merged2b_224.py',
    '../_base_/datasets/imagenet_zero_shot_224.py',
    '../_base_/schedules/eva_clip.py',
    '../_base_/default_runtime_clip.py',
]

model = dict(
    backbone=dict(
        patch_dropout=0.5,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/QuanSun/EVA-CLIP/resolve/main/EVA01_g_psz14.pt',
        ),
    ),
    text=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint=(
                'https://huggingface.co/laion/CLIP-ViT-H-14-laion2B-s32B-b79K/'
                'resolve/main/open_clip_pytorch_model.bin'
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
train_cfg = dict(max_iters=95913, val_interval=349)
default_hooks = dict(checkpoint=dict(interval=349))
auto_scale_lr = dict(base_batch_size=114688)
