"""Objects365 v2, boxes only, training and validation images together.

Folder: data/objects365/{annotations,images}, see docs/en/data_preparation.md.
`objects365_<size>.py` adds the pipelines. What is evaluated was trained on: the figure only says
that a run works.
"""

_objects365 = dict(
    type='evamm.Objects365V2Dataset',
    data_root='data/objects365',
    data_prefix=dict(img='images/'),
)

train_members = [
    dict(
        **_objects365,
        ann_file=f'annotations/zhiyuan_objv2_{split}.json',
        filter_cfg=dict(filter_empty_gt=True),
    )
    for split in ('train', 'val')
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    pin_memory=True,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='ConcatDataset'),
)

val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    pin_memory=True,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**_objects365, ann_file='annotations/zhiyuan_objv2_val.json', test_mode=True),
)
val_evaluator = dict(
    type='evamm.CocoMetric',
    ann_file='data/objects365/annotations/zhiyuan_objv2_val.json',
    metric='bbox',
)

test_dataloader = val_dataloader
test_evaluator = val_evaluator
