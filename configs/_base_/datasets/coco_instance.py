"""COCO 2017 with masks; `coco_instance_<size>.py` adds the pipelines.

Folders: data/coco/{train2017,val2017} and data/coco/annotations, see docs/en/data_preparation.md.
"""

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    pin_memory=True,
    persistent_workers=True,
    drop_last=True,
    # One endless row of shuffled passes, dealt to the processes in turn, as in the official code.
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='evamm.CocoDataset',
        data_root='data/coco',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        # Images without an object, or with crowds only, are left out.
        filter_cfg=dict(filter_empty_gt=True),
    ),
)

val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    pin_memory=True,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='evamm.CocoDataset',
        data_root='data/coco',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
    ),
)
# 100 detections per image count, as in the official evaluation.
val_evaluator = dict(
    type='evamm.CocoMetric',
    ann_file='data/coco/annotations/instances_val2017.json',
    metric=['bbox', 'segm'],
)

test_dataloader = val_dataloader
test_evaluator = val_evaluator
