"""Merged-2B at 336 pixels: LAION-2B and COYO-700M, four to one, official augmentation.

Shards of img2dataset in data/laion2b and data/coyo700m, each with a list, shards.json; see
docs/en/data_preparation.md.
Only training data: a config adds what it is tested on.
"""

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(
        type='evamm.RandomResizedCrop',
        scale=336,
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
        type='evamm.ImageTextMixture',
        # 1.6 of 2 billion pairs are from LAION-2B.
        weights=[1.6, 0.4],
        datasets=[
            dict(
                type='evamm.ImageTextShards',
                data_root='data/laion2b',
                shards='shards.json',
                pipeline=train_pipeline,
            ),
            dict(
                type='evamm.ImageTextShards',
                data_root='data/coyo700m',
                shards='shards.json',
                pipeline=train_pipeline,
            ),
        ],
    ),
)
