"""ImageNet-21K at 224 pixels, official pipelines (crops of at least 0.5 of the image)."""

_base_ = './imagenet21k.py'

train_pipeline = [
    # EXIF rotation is ignored, as in the official code.
    dict(type='evamm.LoadImageFromFile'),
    dict(
        type='evamm.RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.5, 1.0),
        interpolation='bicubic',
    ),
    dict(type='evamm.RandomFlip', prob=0.5, direction='horizontal'),
    _base_.rand_augment,
    dict(type='evamm.PackInputs'),
]

test_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    # Pillow's bits. 'torch' takes half the time and may differ by one grey level of 255.
    dict(type='evamm.ResizeEdge', scale=224, interpolation='bicubic', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='evamm.PackInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
