"""eva02_mim_tiny_digits.py without a teacher in the loop: its features are read from disk.

Write them first: python tools/cache_teacher.py configs/digits/eva02_mim_tiny_digits.py \
    --out work_dirs/eva02_clip_tiny_digits/features
Crops, masks and losses are those of the run with the teacher.
"""

_base_ = './eva02_mim_tiny_digits.py'

train_pipeline = _base_.train_pipeline
train_pipeline[3].cache = 'work_dirs/eva02_clip_tiny_digits/features'

# What tools/cache_teacher.py computes; training has no teacher.
teacher = _base_.model.teacher
model = dict(teacher=None, head=dict(out_channels=128))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# The features of test images are not kept.
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = test_evaluator = test_cfg = None
