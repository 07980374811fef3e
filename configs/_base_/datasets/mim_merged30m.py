"""Pre-training on merged-30M: the images of six data sets, 29.6 million in all.

Each member is a folder with all its sub-folders, or a list of paths (`ann_file`), and can be
replaced or left out; missing ones are named before a run begins.
"""

_base_ = './mim_imagenet21k.py'

_images = dict(type='evamm.ImageList', pipeline=_base_.train_pipeline)
merged30m = [
    dict(_images, data_root='data/imagenet21k', data_prefix='train'),
    dict(_images, data_root='data/ade/ADEChallengeData2016', data_prefix='images/training'),
    dict(_images, data_root='data/cc12m', data_prefix='train'),
    dict(_images, data_root='data/cc3m', data_prefix='train'),
    dict(_images, data_root='data/coco', data_prefix='train2017'),
    dict(_images, data_root='data/objects365', data_prefix='train'),
]

train_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=merged30m))
