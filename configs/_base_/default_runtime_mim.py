"""Runtime of pre-training: the best checkpoint is that of the largest cosine."""

_base_ = './default_runtime_cls.py'

default_hooks = dict(checkpoint=dict(save_best='mim/cosine', rule='greater'))

# Every process drops other residual branches.
randomness = dict(seed=88, diff_rank_seed=True)
