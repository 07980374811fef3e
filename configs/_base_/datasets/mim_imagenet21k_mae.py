"""Pre-training MAE-style on ImageNet-21K: `mim_imagenet21k.py` with three of four patches removed.

In validation an image has the same random mask every time.
"""

_base_ = './mim_imagenet21k.py'

_train = _base_.train_pipeline
train_pipeline = [
    *_train[:3],
    dict(type='evamm.RandomMasking', input_size=16, mask_ratio=0.75),
    _train[4],
]
_val = _base_.val_pipeline
val_pipeline = [
    *_val[:3],
    dict(type='evamm.RandomMasking', input_size=16, mask_ratio=0.75, seed=0),
    _val[4],
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=val_pipeline))
