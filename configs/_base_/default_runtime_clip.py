"""Runtime of image-text training: as for classification, but counted in iterations."""

_base_ = './default_runtime_cls.py'

default_hooks = dict(
    # A final config sets the interval to one round of validation, 40 million pairs.
    checkpoint=dict(by_epoch=False, save_best='accuracy/top1'),
)
log_processor = dict(by_epoch=False)

# Every process drops other patches and residual branches.
randomness = dict(seed=4096, diff_rank_seed=True)
