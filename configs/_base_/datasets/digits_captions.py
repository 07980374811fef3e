"""Scenes of one or two coloured digits with captions; zero-shot test on digits never seen.

20,000 pairs to train on, made of 4,000 digits; 1,000 pictures of one of 1,000 other digits each to
test on. Write them with: python tools/dataset_converters/digits.py data/digits
"""

data_root = 'data/digits/captions'

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(
        type='evamm.RandomResizedCrop',
        scale=40,
        crop_ratio_range=(0.9, 1.0),
        interpolation='bicubic',
    ),
    dict(type='evamm.TokenizeText'),
    dict(type='evamm.PackPairInputs'),
]

test_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.ResizeEdge', scale=40, edge='short', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=40),
    dict(type='evamm.PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='evamm.ShardSampler'),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='evamm.ImageTextShards',
        data_root=data_root,
        shards='train/shard-*.tar',
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
        data_root=f'{data_root}/zero_shot',
        split='val',
        metainfo=dict(
            classes=[
                'zero',
                'one',
                'two',
                'three',
                'four',
                'five',
                'six',
                'seven',
                'eight',
                'nine',
            ],
        ),
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='Accuracy', topk=(1,))

test_dataloader = val_dataloader
test_evaluator = val_evaluator
