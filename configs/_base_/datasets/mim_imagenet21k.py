"""Pre-training on the images of ImageNet-21K at 224 pixels; official pipelines.

Images: data/imagenet21k/train, sub-folders included, labels left aside. A list is read quicker than
14 million files are found: `ann_file`, see docs/en/pretraining.md. Validation: how well the
features of every second patch of the ImageNet-1K validation images are predicted.
"""

train_pipeline = [
    # EXIF rotation is ignored, as in the official code.
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='evamm.RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        interpolation='bicubic',
    ),
    # At most 105 of 16 x 16 patches, 104.4 on average.
    dict(type='evamm.BlockMasking', input_size=16, num_masking_patches=105, min_num_patches=16),
    dict(type='evamm.PackMIMInputs'),
]

val_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    # Pillow's bits. 'torch' takes half the time and may differ by one grey level of 255.
    dict(type='evamm.ResizeEdge', scale=256, interpolation='bicubic', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='evamm.EvenMasking', input_size=16),
    dict(type='evamm.PackMIMInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=10,
    pin_memory=True,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='evamm.ImageList',
        data_root='data/imagenet21k',
        data_prefix='train',
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=48,
    num_workers=10,
    pin_memory=True,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='val', pipeline=val_pipeline),
)
val_evaluator = dict(type='evamm.MIMCosine')

test_dataloader = val_dataloader
test_evaluator = val_evaluator
