"""EVA-01-CLIP-g image tower, fine-tuned on ImageNet-1K at 336 pixels.

Reproduces: `eva_clip_vis_enc_sz336_ftcls_89p4` of EVA-01/eva/README.md.
Expected: 89.378 % top-1, 98.792 % top-5 (averaged weights).
Hardware: 8 GPUs (official run: 4 nodes x 8 GPUs x 16 images).
Command: bash tools/dist_train.sh configs/eva/eva_giant_p14_clip_8xb16_in1k_336px.py 8
Total batch: 8 GPUs x 16 images x 4 accumulation = 512.
"""

_base_ = [
    '../_base_/models/eva/giant.py',
    '../_base_/datasets/imagenet_336.py',
    '../_base_/schedules/eva_finetune.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        img_size=336,
        drop_path_rate=0.4,
        with_cp=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/BAAI/EVA/resolve/main/eva_clip_psz14_vision_enc.pt',
            mim_norm='discard',
        ),
    ),
    head=dict(loss=dict(label_smooth_val=0.3)),
)

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    accumulative_counts=4,
    optimizer=dict(lr=3e-5),
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=20)
auto_scale_lr = dict(base_batch_size=512)
