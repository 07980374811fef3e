"""draft"""

_base_ = [
    '../_base_/models/eva_classifier.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/eva_finetune.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(
        arch=dict(embed_dims=128, depth=6, num_heads=2),
        img_size=28,
        patch_size=7,
        freeze_patch_embed=False,
    ),
    head=dict(num_classes=10, in_channels=128),
)
data_preprocessor = dict(num_classes=10)

optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=25)
custom_hooks = []
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(save_best=None, max_keep_ckpts=1))
