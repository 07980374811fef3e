"""EVA-02-CLIP-B/16, trained on Merged-2B.

Reproduces: `EVA02_CLIP_B_psz16_s8B` of EVA-CLIP/README.md.
Expected: 74.7 % zero-shot top-1 on ImageNet-1K, 66.9 % text-to-image recall at 5 on COCO.
Hardware: 64 GPUs (official run: A100 of 40 GB, float16, bfloat16 here).
Command, on each of 8 machines of 8 GPUs: NNODES=8 NODE_RANK=$RANK MASTER_ADDR=$HOST \
    bash tools/dist_train.sh configs/eva_clip/eva02_clip_base_p16_64xb2048_merged2b.py 8
Total batch: 64 GPUs x 2048 pairs = 131072.
Steps: 8 billion pairs / 131072 = 61036; 305 for 40 million pairs, the official epoch.
"""

_base_ = [
    '../_base_/models/eva_clip/base.py',
    '../_base_/datasets/merged2b_224.py',
    '../_base_/datasets/imagenet_zero_shot_224.py',
    '../_base_/schedules/eva_clip.py',
    '../_base_/default_runtime_clip.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/QuanSun/EVA-CLIP/resolve/main/EVA02_B_psz14to16.pt',
            # The trunk of masked image modelling has no norm before the output projection.
            allow_missing=['blocks.*.attn.norm.*'],
        ),
    ),
    text=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint=(
                'https://openaipublic.azureedge.net/clip/models/'
                '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt'
            ),
        ),
    ),
)

train_dataloader = dict(batch_size=2048)
optim_wrapper = dict(
    paramwise_cfg=dict(
        towers=dict(
            visual=dict(lr=2e-4, layer_decay_rate=0.75),
            text=dict(lr=2e-5),
        )
    )
)
train_cfg = dict(max_iters=61036, val_interval=305)
default_hooks = dict(checkpoint=dict(interval=305))
auto_scale_lr = dict(base_batch_size=131072)
