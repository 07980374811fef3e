"""A narrow EVA-02 pre-trained on scenes of digits: it predicts the features of their own CLIP.

The recipe of EVA-02 with data and teacher exchanged and the model made small: 0.8 M parameters
(width 128, 4 blocks, 2 heads), 40 pixels in 25 patches. The teacher is the image tower that
eva02_clip_tiny_digits.py trains; another one: `--cfg-options
model.teacher.init_cfg.checkpoint=PATH`. Fine-tune with `model.backbone.init_cfg` set to the result.
eva02_mim_tiny_digits_cached.py reads the teacher's features from disk.
Hardware: 2 CPU cores, about 6 minutes (measured on a busy machine).
Command: python tools/train.py configs/digits/eva02_mim_tiny_digits.py
Total batch: 1 process x 100 images = 100.
"""

_base_ = [
    '../_base_/models/eva_mim.py',
    '../_base_/datasets/digit_scenes_mim.py',
    '../_base_/schedules/eva_mim.py',
    '../_base_/default_runtime_mim.py',
]

model = dict(
    patch_grad_scale=0.1,
    backbone=dict(
        arch=dict(embed_dims=128, depth=4, num_heads=2),
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
            type='Pretrained', checkpoint='work_dirs/eva02_clip_tiny_digits/iter_3600.pth'
        ),
    ),
)

optim_wrapper = dict(optimizer=dict(lr=1.5e-3))
param_scheduler = dict(warmup=80, by_epoch=False, convert_to_iter_based=False)
train_cfg = dict(by_epoch=False, max_iters=1200, val_interval=400)
log_processor = dict(by_epoch=False)
# A CPU is slow in half precision.
val_cfg = dict(fp16=False)
test_cfg = dict(fp16=False)
auto_scale_lr = dict(base_batch_size=100)

default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=400, save_best=None, rule=None, max_keep_ckpts=1),
)
