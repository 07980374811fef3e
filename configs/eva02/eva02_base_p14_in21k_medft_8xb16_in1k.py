"""EVA-02-B, MIM and fine-tuned on ImageNet-21K, then fine-tuned on ImageNet-1K at 448 pixels.

Reproduces: `eva02_B_pt_in21k_medft_in21k_ft_in1k_p14` of EVA-02/asuka/README.md.
Expected: 88.570 % top-1, 98.650 % top-5 (averaged weights).
Hardware: 8 GPUs (official run: 1 node x 8 GPUs x 64 images).
Command: bash tools/dist_train.sh configs/eva02/eva02_base_p14_in21k_medft_8xb16_in1k.py 8
Total batch: 8 GPUs x 16 images x 4 accumulation = 512.
"""

_base_ = [
    '../_base_/models/eva02/base.py',
    '../_base_/datasets/imagenet_448.py',
    '../_base_/schedules/eva_finetune.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        img_size=448,
        drop_path_rate=0.15,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=(
                'https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/'
                'eva02/cls/in21k/eva02_B_pt_in21k_medft_in21k_p14.pt'
            ),
        ),
    ),
    head=dict(loss=dict(label_smooth_val=0.2)),
)

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    accumulative_counts=4,
    optimizer=dict(lr=5e-5),
    paramwise_cfg=dict(layer_decay_rate=0.8),
)
param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=15)
auto_scale_lr = dict(base_batch_size=512)
