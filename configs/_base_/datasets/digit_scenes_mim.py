"""Pre-training on 8,000 scenes of a coloured digit, 40 pixels, 25 patches; labels are left aside.

Four fixed crops of each scene, so that a teacher's features can be kept (tools/cache_teacher.py).
Write them with: python tools/dataset_converters/digits.py data/digits --task scene_classes
"""

data_root = 'data/digits/scene_classes'

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(
        type='evamm.SeededCrops',
        num_views=4,
        # Digits have no mirror image.
        transforms=[
            dict(
                type='evamm.RandomResizedCrop',
                scale=40,
                crop_ratio_range=(0.7, 1.0),
                interpolation='bicubic',
            ),
        ],
    ),
    # At most 10 of 5 x 5 patches, 40 %.
    dict(type='evamm.BlockMasking', input_size=5, num_masking_patches=10, min_num_patches=2),
    # Does nothing until it is given a cache.
    dict(type='evamm.LoadTeacherFeatures'),
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
    batch_size=100,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='evamm.ImageList', data_root=data_root, data_prefix='train', pipeline=train_pipeline
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
