"""EVA-01-g, MIM on merged-30M, fine-tuned on ImageNet-21K, then on ImageNet-1K at 560 pixels.

Reproduces: `eva_21k_1k_560px_psz14_ema` of EVA-01/eva/README.md.
Expected: 89.712 % top-1, 98.958 % top-5 (averaged weights).
Hardware: 8 GPUs (official run: 4 nodes x 8 GPUs x 16 images).
Command: bash tools/dist_train.sh configs/eva/eva_giant_p14_in21k_medft_8xb16_in1k_560px.py 8
Total batch: 8 GPUs x 16 images x 4 accumulation = 512.
"""

_base_ = [
    '../_base_/models/eva/giant.py',
    '../_base_/datasets/imagenet_560.py',
    '../_base_/schedules/eva_finetune.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        img_size=560,
        drop_path_rate=0.4,
        with_cp=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/BAAI/EVA/resolve/main/eva_21k_224px_psz14.pt',
        ),
    ),
    head=dict(loss=dict(label_smooth_val=0.3)),
)

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    accumulative_counts=4,
    optimizer=dict(lr=3e-5),
    paramwise_cfg=dict(layer_decay_rate=0.95),
)
param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=15)
auto_scale_lr = dict(base_batch_size=512)
