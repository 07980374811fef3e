"""LVIS v1 with masks at 1536 pixels."""

_base_ = ['./lvis_v1_instance.py', './det_pipelines_1536.py']

train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
