"""Merged-2B at 224 pixels: LAION-2B and COYO-700M, four to one, official augmentation.

Shards of img2dataset in data/laion2b and data/coyo700m, each with a list, shards.json; see
docs/en/data_preparation.md.
Only training data: a config adds what it is tested on.
"""

_base_ = './laion2b_224.py'

_shards = dict(type='evamm.ImageTextShards', shards='shards.json', pipeline=_base_.train_pipeline)

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='evamm.ImageTextMixture',
        # 1.6 of 2 billion pairs are from LAION-2B.
        weights=[1.6, 0.4],
        datasets=[
            dict(_shards, data_root='data/laion2b'),
            dict(_shards, data_root='data/coyo700m'),
        ],
    ),
)
