"""Fine-tuning of the MAE-style ViT-B/16 on ImageNet-1K at 224 pixels.

Reproduces: `vit-base-p16_eva-mae-style-pre_8xb128-coslr-100e_in1k` of mmpretrain.
Expected: 83.72 % top-1.
Hardware: 8 GPUs.
Command: bash tools/dist_train.sh configs/eva_mae_style/vit_base_p16_8xb128_coslr_100e_in1k.py 8
Total batch: 8 GPUs x 128 images x 1 accumulation = 1024.
"""

_base_ = [
    '../_base_/models/eva_mae_style.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/default_runtime_cls.py',
]

data_preprocessor = dict(num_classes=1000)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        _base_.vit_base,
        out_type='avg_featmap',
        drop_path_rate=0.1,
        init_cfg=dict(_base_.pretrained, mim_norm='discard'),
    ),
    neck=None,
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.RandomResizedCrop', scale=224, interpolation='bicubic'),
    dict(type='evamm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(_base_.rand_augment, hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic')),
    # Images are BGR here.
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[103.53, 116.28, 123.675],
        fill_std=[57.375, 57.12, 58.395],
    ),
    dict(type='evamm.PackInputs'),
]
test_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.ResizeEdge', scale=256, interpolation='bicubic', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='evamm.PackInputs'),
]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=128, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=128, dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(
    type='evamm.AmpOptimWrapper',
    dtype='bfloat16',
    constructor='evamm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(rule='classification', layer_decay_rate=0.65),
    optimizer=dict(type='AdamW', lr=4e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=95,
        by_epoch=True,
        begin=5,
        end=100,
        eta_min=1e-6,
        convert_to_iter_based=True,
    ),
]

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=1024)
