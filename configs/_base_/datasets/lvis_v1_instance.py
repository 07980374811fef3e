"""LVIS v1 with masks: 1203 classes on the images of COCO.

Folders: data/coco/{train2017,val2017} and data/lvis_v1/annotations, see
docs/en/data_preparation.md. The validation images are in both image folders.
`lvis_v1_instance_<size>.py` adds the pipelines.
"""

_base_ = './coco_instance.py'

train_dataloader = dict(
    # An image comes sqrt(0.001 / f) times as often if its rarest class is in a share f < 0.001 of
    # the images.
    sampler=dict(_delete_=True, type='evamm.RepeatFactorSampler', threshold=0.001),
    dataset=dict(
        type='evamm.LVISV1Dataset',
        data_root='data',
        ann_file='lvis_v1/annotations/lvis_v1_train.json',
        data_prefix=dict(img='coco/'),
    ),
)
val_dataloader = dict(
    dataset=dict(
        type='evamm.LVISV1Dataset',
        data_root='data',
        ann_file='lvis_v1/annotations/lvis_v1_val.json',
        data_prefix=dict(img='coco/'),
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(
    _delete_=True,
    type='evamm.LVISMetric',
    ann_file='data/lvis_v1/annotations/lvis_v1_val.json',
    metric=['bbox', 'segm'],
    max_dets=300,
)
test_evaluator = val_evaluator
