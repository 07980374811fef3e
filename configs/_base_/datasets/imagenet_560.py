"""ImageNet-1K at 560 pixels, official pipelines."""

_base_ = './imagenet.py'

train_pipeline = [
    # EXIF rotation is ignored, as in the official code.
    dict(type='evamm.LoadImageFromFile'),
    dict(
        type='evamm.RandomResizedCrop',
        scale=560,
        crop_ratio_range=(0.08, 1.0),
        interpolation='bicubic',
    ),
    dict(type='evamm.RandomFlip', prob=0.5, direction='horizontal'),
    _base_.rand_augment,
    dict(type='evamm.PackInputs'),
]

test_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    # Pillow's bits. 'torch' takes half the time and may differ by one grey level of 255.
    dict(type='evamm.ResizeEdge', scale=560, interpolation='bicubic', backend='pillow'),
    dict(type='CenterCrop', crop_size=560),
    dict(type='evamm.PackInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
