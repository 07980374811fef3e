"""EVA-L, MIM on ImageNet-21K, fine-tuned on ImageNet-1K at 336 pixels.

Reproduces: `eva_l_psz14_336px_1k_ft_88p65` of EVA-01/eva/README.md.
Expected: 88.652 % top-1, 98.746 % top-5 (averaged weights, best epoch).
Hardware: 8 GPUs (official run: not published).
Command: bash tools/dist_train.sh configs/eva/eva_large_p14_8xb16_in1k_336px.py 8
Total batch: 8 GPUs x 16 images x 8 accumulation = 1024.

Only a training log is published (EVA-01/logs/cls/eva-l_ft_1k_cls_sz336_50ep_88p65.txt).
From the log: lr, epochs, warm-up, weight decay, EMA; layer decay 0.8 from min_lr / lr; total batch
1024 from 1251 steps per epoch; mixing on, because no training accuracy is logged.
Unknown, and chosen here: BEiT v2's ViT-L values, because its lr, layer decay, epochs, warm-up and
batch are the same: mixup 0.8, cutmix 1.0, drop path 0.2, smoothing 0.1; RandAugment and no random
erasing as in every EVA recipe.
"""

_base_ = [
    '../_base_/models/eva/large.py',
    '../_base_/datasets/imagenet_336.py',
    '../_base_/schedules/eva_finetune.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        img_size=336,
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/BAAI/EVA/resolve/main/eva_l_psz14.pt',
            mim_norm='discard',
        ),
    ),
    head=dict(loss=dict(label_smooth_val=0.1)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    accumulative_counts=8,
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(layer_decay_rate=0.8),
)
param_scheduler = dict(warmup=5)
train_cfg = dict(max_epochs=50)
auto_scale_lr = dict(base_batch_size=1024)
