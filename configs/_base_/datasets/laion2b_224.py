"""LAION-2B (English) at 224 pixels, official augmentation.

Shards of img2dataset in data/laion2b, listed in its shards.json; see docs/en/data_preparation.md.
Only training data: a config adds what it is tested on.
"""

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(
        type='evamm.RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.9, 1.0),
        interpolation='bicubic',
    ),
    dict(type='evamm.TokenizeText'),
    dict(type='evamm.PackPairInputs'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    pin_memory=True,
    persistent_workers=True,
    drop_last=True,
    # As in the official runs: shards are drawn with replacement, 40 million pairs are an epoch.
    sampler=dict(type='evamm.ShardSampler', replacement=True, epoch_samples=40_000_000),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='evamm.ImageTextShards',
        data_root='data/laion2b',
        shards='shards.json',
        pipeline=train_pipeline,
    ),
)
