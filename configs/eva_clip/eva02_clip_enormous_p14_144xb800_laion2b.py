"""EVA-02-CLIP-E/14, trained on LAION-2B.

Reproduces: `EVA02_CLIP_E_psz14_s4B` of EVA-CLIP/README.md.
Expected: 81.9 % zero-shot top-1 on ImageNet-1K, 74.7 % text-to-image recall at 5 on COCO.
Hardware: 144 GPUs (official run: A100 of 80 GB, float16, bfloat16 here).
Command, on each of 18 machines of 8 GPUs: NNODES=18 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva_clip/eva02_clip_enormous_p14_144xb800_laion2b.py 8
Total batch: 144 GPUs x 800 pairs = 115200.
Steps: 4 billion pairs / 115200 = 34723; 347 for 40 million pairs, the official epoch.
"""

_base_ = [
    '../_base_/models/eva_clip/enormous.py',
    '../_base_/datasets/laion2b_224.py',
    '../_base_/datasets/imagenet_zero_shot_224.py',
    '../_base_/schedules/eva_clip.py',
    '../_base_/default_runtime_clip.py',
]

model = dict(
    backbone=dict(
        patch_dropout=0.5,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/QuanSun/EVA-CLIP/resolve/main/EVA02_E_psz14.pt',
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

train_dataloader = dict(batch_size=800)
optim_wrapper = dict(
    paramwise_cfg=dict(
        towers=dict(
            visual=dict(layer_decay_rate=0.9),
        )
    )
)
train_cfg = dict(max_iters=34723, val_interval=347)
default_hooks = dict(checkpoint=dict(interval=347))
auto_scale_lr = dict(base_batch_size=115200)
