"""Pre-training MAE-style on ImageNet-1K at 224 pixels and patches of 16 (mmpretrain's recipe).

In validation an image has the same random mask every time.
"""

_base_ = './imagenet.py'

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(
        type='evamm.RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        interpolation='bicubic',
    ),
    dict(type='evamm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='evamm.RandomMasking', input_size=14, mask_ratio=0.75),
    dict(type='evamm.PackMIMInputs'),
]

val_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.ResizeEdge', scale=256, interpolation='bicubic', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='evamm.RandomMasking', input_size=14, mask_ratio=0.75, seed=0),
    dict(type='evamm.PackMIMInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=val_pipeline))
val_evaluator = dict(_delete_=True, type='evamm.MIMCosine')
test_evaluator = dict(_delete_=True, type='evamm.MIMCosine')
