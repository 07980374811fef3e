"""A narrow EVA-02 on scenes of digits with few labels, from scratch or from MIM weights.

The classification recipe with the data set exchanged and the model made small: 0.8 M parameters
(width 128, 4 blocks, 2 heads), 40 pixels in 25 patches.
Expected: 78.3 % top-1 with 100 labels and 92.7 % with 1,000 from MIM weights, 31.4 % and 45.5 %
    from scratch in as many steps (means of three seeds; docs/en/cycle.md).
Hardware: 2 CPU cores, about a minute (measured on a busy machine).
Command: python tools/train.py configs/digits/eva02_tiny_digit_scenes.py, and from MIM weights with
    --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=PATH
Total batch: 1 process x 50 images = 50.
"""

_base_ = [
    '../_base_/models/eva_classifier.py',
    '../_base_/datasets/digit_scenes.py',
    '../_base_/schedules/eva_finetune.py',
    '../_base_/default_runtime_cls.py',
]

data_preprocessor = dict(num_classes=10)
model = dict(
    backbone=dict(
        arch=dict(embed_dims=128, depth=4, num_heads=2),
        img_size=40,
        patch_size=8,
        freeze_patch_embed=False,
    ),
    head=dict(num_classes=10, in_channels=128, topk=(1,)),
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
param_scheduler = dict(warmup=30, by_epoch=False, convert_to_iter_based=False)
train_cfg = dict(by_epoch=False, max_iters=300, val_interval=300)
auto_scale_lr = dict(base_batch_size=50)
log_processor = dict(by_epoch=False)

# So short a run has nothing to average.
custom_hooks = []
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=300, save_best=None, max_keep_ckpts=1),
)
