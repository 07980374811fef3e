"""COCO 2017 with masks at 1280 pixels."""

_base_ = ['./coco_instance.py', './det_pipelines_1280.py']

train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
