"""Pre-training on Merged-38M: merged-30M and the images of OpenImages v6."""

_base_ = './mim_merged30m.py'

merged38m = _base_.merged30m + [
    dict(
        type='evamm.ImageList',
        pipeline=_base_.train_pipeline,
        data_root='data/openimages',
        data_prefix='train',
    )
]

train_dataloader = dict(dataset=dict(datasets=merged38m))
