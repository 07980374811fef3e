"""Merged-2B at 336 pixels: LAION-2B and COYO-700M, four to one, official augmentation.

Shards of img2dataset in data/laion2b and data/coyo700m, each with a list, shards.json; see
docs/en/data_preparation.md.
Only training data: a config adds what it is tested on.
"""

_base_ = './merged2b_224.py'

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

_shards = dict(type='evamm.ImageTextShards', shards='shards.json', pipeline=train_pipeline)

train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(_shards, data_root='data/laion2b'),
            dict(_shards, data_root='data/coyo700m'),
        ],
    ),
)
