"""Objects365 v2, boxes only, at 1024 pixels."""

_base_ = ['./objects365.py', './det_pipelines_1024.py']

train_dataloader = dict(
    dataset=dict(
        datasets=[
            dict(member, pipeline=_base_.train_pipeline_boxes) for member in _base_.train_members
        ]
    )
)
val_dataloader = dict(dataset=dict(pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
