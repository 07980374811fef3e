"""Pre-training on the images of the digits, 40 pixels, 25 patches; labels are left aside.

Write them with: python tools/dataset_converters/digits.py data/digits
"""

data_root = 'data/digits/classification'

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    # Digits have no mirror image.
    dict(
        type='evamm.RandomResizedCrop',
        scale=40,
        crop_ratio_range=(0.6, 1.0),
        interpolation='bicubic',
    ),
    # At most 10 of 5 x 5 patches, 40 %.
    dict(type='evamm.BlockMasking', input_size=5, num_masking_patches=10, min_num_patches=2),
    dict(type='evamm.PackMIMInputs'),
]

val_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.ResizeEdge', scale=40, edge='short', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=40),
    dict(type='evamm.EvenMasking', input_size=5),
    dict(type='evamm.PackMIMInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='evamm.ImageList',
        data_root=data_root,
        data_prefix='train',
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=100,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='evamm.ImageList', data_root=data_root, data_prefix='val', pipeline=val_pipeline
    ),
)
val_evaluator = dict(type='evamm.MIMCosine')

test_dataloader = val_dataloader
test_evaluator = val_evaluator
