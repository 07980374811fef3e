"""EVA-01-g, MIM on merged-30M, intermediate fine-tuning on ImageNet-21K at 224 pixels.

Reproduces: `eva_21k_224px_psz14` of EVA-01/eva/README.md.
Expected: no figure is published for this step.
Hardware: 8 GPUs (official run: 8 nodes x 8 GPUs x 64 images).
Command: bash tools/dist_train.sh configs/eva/eva_giant_p14_8xb16_in21k.py 8
Total batch: 8 GPUs x 16 images x 32 accumulation = 4096.
"""

_base_ = [
    '../_base_/models/eva/giant.py',
    '../_base_/datasets/imagenet21k_224.py',
    '../_base_/schedules/eva_finetune_in21k.py',
    '../_base_/default_runtime_cls.py',
]

data_preprocessor = dict(num_classes=21841)

model = dict(
    backbone=dict(
        img_size=224,
        drop_path_rate=0.4,
        with_cp=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/BAAI/EVA/resolve/main/eva_psz14.pt',
            mim_norm='discard',
        ),
    ),
    head=dict(num_classes=21841, loss=dict(label_smooth_val=0.1)),
    train_cfg=dict(augments=[dict(type='CutMix', alpha=1.0)]),
)

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    accumulative_counts=32,
    optimizer=dict(lr=1e-4, betas=(0.9, 0.98), eps=1e-6),
    paramwise_cfg=dict(layer_decay_rate=0.85),
)
param_scheduler = dict(warmup=15, eta_min=1e-6)
train_cfg = dict(max_epochs=60)
auto_scale_lr = dict(base_batch_size=4096)

default_hooks = dict(checkpoint=dict(save_best=None))
