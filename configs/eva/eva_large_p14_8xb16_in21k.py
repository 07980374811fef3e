"""EVA-L, MIM on ImageNet-21K, intermediate fine-tuning on ImageNet-21K at 224 pixels.

Reproduces: `eva_l_psz14_21k_ft` of EVA-01/eva/README.md.
Expected: no figure is published for this step.
Hardware: 8 GPUs (official run: not published).
Command: bash tools/dist_train.sh configs/eva/eva_large_p14_8xb16_in21k.py 8
Total batch: 8 GPUs x 16 images x 32 accumulation = 4096.

Only a training log is published (EVA-01/logs/cls/eva-l_intermed_ft_21k_90ep_sz224.txt).
From the log: lr, epochs, warm-up, final lr 1e-6 and weight decay as printed; layer decay 0.75 from
min_lr / lr; mixing on, because no training accuracy is logged.
Unknown, and chosen here: total batch 4096 (EVA-01-g's; the log's 3439 steps per epoch would be
14.09 M images), crops of at least 0.5 of the image (EVA-01-g's at 224 pixels), no random erasing
(as in every EVA recipe), and BEiT v2's ViT-L values for the rest, because its lr, layer decay and
epochs are the same: mixup 0.8, cutmix 1.0, drop path 0.2, smoothing 0.1, betas 0.9 and 0.999.
"""

_base_ = [
    '../_base_/models/eva/large.py',
    '../_base_/datasets/imagenet21k_224.py',
    '../_base_/schedules/eva_finetune_in21k.py',
    '../_base_/default_runtime_cls.py',
]

data_preprocessor = dict(num_classes=21841)

model = dict(
    backbone=dict(
        img_size=224,
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://huggingface.co/BAAI/EVA/resolve/main/eva_l_psz14.pt',
            mim_norm='discard',
        ),
    ),
    head=dict(num_classes=21841, loss=dict(label_smooth_val=0.1)),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    accumulative_counts=32,
    optimizer=dict(lr=6e-4),
    paramwise_cfg=dict(layer_decay_rate=0.75),
)
param_scheduler = dict(warmup=15, eta_min=1e-6)
train_cfg = dict(max_epochs=90)
auto_scale_lr = dict(base_batch_size=4096)

default_hooks = dict(checkpoint=dict(save_best=None))
