"""EVA-02-CLIP-L/14 at 336 pixels, going on from 224 on Merged-2B.

Reproduces: `EVA02_CLIP_L_336_psz14_s6B` of EVA-CLIP/README.md.
Expected: 80.4 % zero-shot top-1 on ImageNet-1K, 71.7 % text-to-image recall at 5 on COCO.
Hardware: 128 GPUs (official run: A100 of 40 GB, float16, bfloat16 here).
Command, on each of 16 machines of 8 GPUs: NNODES=16 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva_clip/eva02_clip_large_p14_128xb480_merged2b_336px.py 8
Total batch: 128 GPUs x 480 pairs = 61440.
Steps: 2 billion pairs / 61440 = 32553; 651 for 40 million pairs, the official epoch.

With the 4 billion pairs at 224 pixels the model has seen 6 billion. Projections and temperature go
on from the file as well: the official skip list does not apply to a whole pair.
"""

_base_ = [
    '../_base_/models/eva_clip/large.py',
    '../_base_/datasets/merged2b_336.py',
    '../_base_/datasets/imagenet_zero_shot_336.py',
    '../_base_/schedules/eva_clip.py',
    '../_base_/default_runtime_clip.py',
]

model = dict(
    backbone=dict(img_size=336),
    init_cfg=dict(
        type='Pretrained',
        checkpoint=(
            'https://huggingface.co/QuanSun/EVA-CLIP/resolve/main/EVA02_CLIP_L_psz14_224to336.pt'
        ),
    ),
)

train_dataloader = dict(batch_size=480)
optim_wrapper = dict(
    paramwise_cfg=dict(
        towers=dict(
            visual=dict(layer_decay_rate=0.75),
            text=dict(layer_decay_rate=0.65),
        )
    )
)
train_cfg = dict(max_iters=32553, val_interval=651)
default_hooks = dict(checkpoint=dict(interval=651))
auto_scale_lr = dict(base_batch_size=61440)
