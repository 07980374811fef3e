"""EVA-02-B, MIM on ImageNet-21K, fine-tuned on ImageNet-1K at 448 pixels.

Reproduces: `eva02_B_pt_in21k_ft_in1k_p14` of EVA-02/asuka/README.md.
Expected: 88.282 % top-1, 98.528 % top-5 (trained weights, `tools/test.py --no-ema`).
Hardware: 8 GPUs (official run: 4 nodes x 8 GPUs x 32 images).
Command: bash tools/dist_train.sh configs/eva02/eva02_base_p14_8xb16_in1k.py 8
Total batch: 8 GPUs x 16 images x 8 accumulation = 1024.
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
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint=(
                'https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/'
                'eva02/pt/eva02_B_pt_in21k_p14.pt'
            ),
            mim_norm='discard',
        ),
    ),
    head=dict(loss=dict(label_smooth_val=0.1)),
)

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    accumulative_counts=8,
    optimizer=dict(lr=1e-4),
    paramwise_cfg=dict(layer_decay_rate=0.7),
)
param_scheduler = dict(warmup=3)
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=1024)
