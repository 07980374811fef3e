"""A narrow EVA-02 pre-trained on the digits: it predicts the features of the digits' own CLIP.

The recipe of EVA-02 with data and teacher exchanged and the model made small: 1.2 M parameters
(width 128, 6 blocks, 2 heads), 40 pixels in 25 patches. The teacher is the image tower that
eva02_clip_tiny_digits.py trains; another one: `--cfg-options
model.teacher.init_cfg.checkpoint=PATH`. Fine-tune with `model.backbone.init_cfg` set to the result.
Hardware: 2 CPU cores, some minutes.
Command: python tools/train.py configs/digits/eva02_mim_tiny_digits.py
Total batch: 1 process x 64 images = 64.
"""

_base_ = [
    '../_base_/models/eva_mim.py',
    '../_base_/datasets/digits_mim.py',
    '../_base_/schedules/eva_mim.py',
    '../_base_/default_runtime_mim.py',
]

model = dict(
    patch_grad_scale=0.1,
    backbone=dict(
        arch=dict(embed_dims=128, depth=6, num_heads=2),
        img_size=40,
        patch_size=8,
    ),
    teacher=dict(
        type='evamm.CLIPTeacher',
        arch=dict(embed_dims=128, depth=4, num_heads=2),
        embed_dims=128,
        img_size=40,
        patch_size=8,
        init_cfg=dict(
            type='Pretrained', checkpoint='work_dirs/eva02_clip_tiny_digits/iter_1280.pth'
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = dict(warmup=2)
train_cfg = dict(max_epochs=30, val_interval=5)
# A CPU is slow in half precision.
val_cfg = dict(fp16=False)
test_cfg = dict(fp16=False)
auto_scale_lr = dict(base_batch_size=64)

default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(save_best=None, rule=None, max_keep_ckpts=2)
)
