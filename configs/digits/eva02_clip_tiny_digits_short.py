"""eva02_clip_tiny_digits.py in a twelfth of its steps: what is a good start worth?

Expected: 92.5 % zero-shot top-1 from MIM weights, 16.8 % from scratch (means of three seeds).
Command: python tools/train.py configs/digits/eva02_clip_tiny_digits_short.py, and from MIM weights
    with --cfg-options model.backbone.init_cfg.type=Pretrained \\
    model.backbone.init_cfg.checkpoint=work_dirs/eva02_mim_tiny_digits/iter_1200.pth
"""

_base_ = './eva02_clip_tiny_digits.py'

param_scheduler = dict(warmup=50, end=300)
train_cfg = dict(max_iters=300, val_interval=300)
default_hooks = dict(checkpoint=dict(interval=300, max_keep_ckpts=1))
