"""Pipelines of detection at 1536 pixels: those of `det_pipelines_1024.py` at another size."""

_base_ = './det_pipelines_1024.py'

train_pipeline = _base_.train_pipeline
train_pipeline[3].size = 1536
train_pipeline_boxes = _base_.train_pipeline_boxes
train_pipeline_boxes[3].size = 1536
test_pipeline = _base_.test_pipeline
test_pipeline[1].size = 1536
