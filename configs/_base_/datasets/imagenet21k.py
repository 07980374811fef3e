"""ImageNet-21K loaders (21,841 classes); `imagenet21k_<size>.py` adds the pipelines.

Folders: data/imagenet21k/train/<class>/<image>, see docs/en/data_preparation.md. The official
runs have no validation; `test_dataloader` reads data/imagenet21k/val, a folder of your own.
"""

_base_ = './imagenet.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, type='ImageNet21k', data_root='data/imagenet21k', split='train')
)
val_dataloader = None
val_evaluator = None
test_dataloader = dict(
    dataset=dict(_delete_=True, type='ImageNet21k', data_root='data/imagenet21k', data_prefix='val')
)
