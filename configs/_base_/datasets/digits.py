"""The digits (real 28x28 MNIST images): 4,000 to train on, 1,000 to test on.

Write them with: python tools/dataset_converters/digits.py data/digits
"""

data_root = 'data/digits/classification'
classes = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    # Digits have no mirror image, and a background of zeros.
    dict(type='Rotate', magnitude_range=(0, 15), prob=0.8, pad_val=0, interpolation='bilinear'),
    dict(
        type='evamm.RandomResizedCrop',
        scale=28,
        crop_ratio_range=(0.6, 1.0),
        interpolation='bilinear',
    ),
    dict(type='evamm.PackInputs'),
]

test_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    # Digits are already this size; pictures from elsewhere are not.
    dict(type='evamm.ResizeEdge', scale=28, edge='short', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=28),
    dict(type='evamm.PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageNet',
        data_root=data_root,
        split='train',
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
val_evaluator = dict(type='Accuracy', topk=(1, 5))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
