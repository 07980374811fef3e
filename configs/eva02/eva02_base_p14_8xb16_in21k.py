"""EVA-02-B, MIM on ImageNet-21K, intermediate fine-tuning on ImageNet-21K at 448 pixels.

Reproduces: `eva02_B_pt_in21k_medft_in21k_p14` of EVA-02/asuka/README.md.
Expected: no figure is published for this step.
Hardware: 8 GPUs (official run: 4 nodes x 8 GPUs x 64 images).
Command: bash tools/dist_train.sh configs/eva02/eva02_base_p14_8xb16_in21k.py 8
Total batch: 8 GPUs x 16 images x 16 accumulation = 2048.
"""

_base_ = [
    '../_base_/models/eva02/base.py',
    '../_base_/datasets/imagenet21k_448.py',
    '../_base_/schedules/eva_finetune_in21k.py',
    '../_base_/default_runtime_cls.py',
]

data_preprocessor = dict(num_classes=21841)

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
    head=dict(num_classes=21841, loss=dict(label_smooth_val=0.1)),
)

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    accumulative_counts=16,
    optimizer=dict(lr=3e-4),
    paramwise_cfg=dict(layer_decay_rate=0.7),
)
param_scheduler = dict(warmup=1)
train_cfg = dict(max_epochs=40)
auto_scale_lr = dict(base_batch_size=2048)

default_hooks = dict(checkpoint=dict(save_best=None))
