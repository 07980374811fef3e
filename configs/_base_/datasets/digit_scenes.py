"""Scenes of a coloured digit, 40 pixels: classification with few labels, 1,000 scenes to test on.

Write them with: python tools/dataset_converters/digits.py data/digits --task scene_classes
Lists of labels: meta/train_{100,1000}_{0,1,2}.txt.
"""

data_root = 'data/digits/scene_classes'
classes = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    # Digits have no mirror image.
    dict(
        type='evamm.RandomResizedCrop',
        scale=40,
        crop_ratio_range=(0.7, 1.0),
        interpolation='bicubic',
    ),
    dict(type='evamm.PackInputs'),
]

test_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.ResizeEdge', scale=40, edge='short', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=40),
    dict(type='evamm.PackInputs'),
]

train_dataloader = dict(
    batch_size=50,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    # Few images: an epoch would end before it has begun.
    sampler=dict(type='InfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageNet',
        data_root=data_root,
        split='train',
        ann_file='meta/train_1000_0.txt',
        metainfo=dict(classes=classes),
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
        type='ImageNet',
        data_root=data_root,
        split='val',
        metainfo=dict(classes=classes),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
