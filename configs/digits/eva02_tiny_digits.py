"""A narrow EVA-02 on the digits, from scratch: the quickstart. It checks that everything works.

The classification recipe with the data set exchanged and the model made small: 1.2 M parameters
(width 128, 6 blocks, 2 heads), 28x28 pixels in 16 patches.
Expected: 97 % top-1 on the 1,000 test images.
Hardware: 2 CPU cores, about 4 minutes.
Command: python tools/quickstart.py, or python tools/train.py configs/digits/eva02_tiny_digits.py
Total batch: 1 process x 64 images = 64.
"""

_base_ = [
    '../_base_/models/eva_classifier.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/eva_finetune.py',
    '../_base_/default_runtime_cls.py',
]

data_preprocessor = dict(num_classes=10)
model = dict(
    backbone=dict(
        arch=dict(embed_dims=128, depth=6, num_heads=2),
        img_size=28,
        patch_size=7,
        freeze_patch_embed=False,
    ),
    head=dict(num_classes=10, in_channels=128),
)

optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
param_scheduler = dict(warmup=3)
train_cfg = dict(max_epochs=40)
auto_scale_lr = dict(base_batch_size=64)

# So short a run has nothing to average.
custom_hooks = []
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(save_best=None, max_keep_ckpts=2))
