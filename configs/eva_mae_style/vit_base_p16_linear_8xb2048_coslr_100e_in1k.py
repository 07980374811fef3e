"""Linear evaluation of the MAE-style ViT-B/16: frozen class token, batch norm, linear layer.

Reproduces: `vit-base-p16_eva-mae-style-pre_8xb2048-linear-coslr-100e_in1k` of mmpretrain.
Expected: 69.02 % top-1.
Hardware: 8 GPUs.
Command: bash tools/dist_train.sh \
    configs/eva_mae_style/vit_base_p16_linear_8xb2048_coslr_100e_in1k.py 8
Total batch: 8 GPUs x 2048 images x 1 accumulation = 16384.
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
        _base_.vit_base, out_type='cls_token', frozen_stages=12, init_cfg=_base_.pretrained
    ),
    neck=dict(type='ClsBatchNormNeck', input_features=768),
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='CrossEntropyLoss'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.01),
    ),
)

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.RandomResizedCrop', scale=224, interpolation='bilinear'),
    dict(type='evamm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='evamm.PackInputs'),
]
test_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.ResizeEdge', scale=256, interpolation='bilinear', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='evamm.PackInputs'),
]
train_dataloader = dict(batch_size=2048, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=256, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=256, dataset=dict(pipeline=test_pipeline))

optim_wrapper = dict(
    type='evamm.AmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='evamm.LARS', lr=3.2, weight_decay=0.0, momentum=0.9),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=90,
        by_epoch=True,
        begin=10,
        end=100,
        eta_min=0.0,
        convert_to_iter_based=True,
    ),
]

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(enable=False, base_batch_size=16384)
