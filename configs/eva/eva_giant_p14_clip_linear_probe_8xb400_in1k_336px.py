"""Linear probing of the EVA-01-CLIP-g image tower on ImageNet-1K at 336 pixels.

Reproduces: `eva_clip_vis_enc_sz336_lincls_86p5` of EVA-01/eva/README.md.
Expected: 86.498 % top-1, 98.026 % top-5.
Hardware: 8 GPUs (official run: 5 nodes x 8 GPUs x 400 images).
Command: bash tools/dist_train.sh configs/eva/eva_giant_p14_clip_linear_probe_8xb400_in1k_336px.py 8
Total batch: 8 GPUs x 400 images x 5 accumulation = 16000.

The statistics of the BatchNorm are those of 400 images, as in the official run. The trunk trains
nothing and keeps nothing for a backward pass, so a GPU that runs it holds such a batch.
"""

_base_ = [
    '../_base_/models/eva_linear_probe.py',
    '../_base_/datasets/imagenet_336.py',
    '../_base_/schedules/eva_linear_probe.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        arch='eva-clip-giant',
        img_size=336,
        frozen_stages=40,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/BAAI/EVA/resolve/main/eva_clip_psz14_vision_enc.pt',
        ),
    ),
    head=dict(in_channels=1408),
)

# Crops and flips only.
train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(
        type='evamm.RandomResizedCrop',
        scale=336,
        crop_ratio_range=(0.08, 1.0),
        interpolation='bicubic',
    ),
    dict(type='evamm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='evamm.PackInputs'),
]
train_dataloader = dict(batch_size=400, dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(accumulative_counts=5, optimizer=dict(lr=0.6))
auto_scale_lr = dict(base_batch_size=16000)
