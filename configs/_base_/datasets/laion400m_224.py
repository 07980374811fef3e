"""LAION-400M at 224 pixels, official augmentation.

Shards of img2dataset in data/laion400m, listed in its shards.json; see docs/en/data_preparation.md.
Only training data: a config adds what it is tested on.
"""

_base_ = './laion2b_224.py'

train_dataloader = dict(dataset=dict(data_root='data/laion400m'))
