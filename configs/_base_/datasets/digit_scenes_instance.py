"""Scenes of up to four digits that overlap, with masks: 2,000 to train on, 300 each to choose on
(val) and to report (test).

They have 96 pixels and are shown at 144: their strokes are thinner than a patch.

Write them with: python tools/dataset_converters/digits.py data/digits --task detection
"""

data_root = 'data/digits/detection'
classes = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']

train_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.LoadDetAnnotations', with_mask=True),
    # Digits have no mirror image, and small ones cannot be read.
    dict(type='evamm.LargeScaleJitter', size=144, scale_range=(0.75, 1.35), recompute_boxes=True),
    dict(type='PackDetInputs'),
]

test_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.ResizeLongestEdge', size=144, backend='pillow'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='evamm.CocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=classes),
        # Images without an object are left out.
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=train_pipeline,
    ),
)

val_dataloader = dict(
    batch_size=10,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='evamm.CocoDataset',
        data_root=data_root,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(
    type='evamm.CocoMetric',
    ann_file=f'{data_root}/annotations/instances_val.json',
    metric=['bbox', 'segm'],
)

test_dataloader = dict(
    val_dataloader,
    dataset=dict(
        val_dataloader['dataset'],
        ann_file='annotations/instances_test.json',
        data_prefix=dict(img='test/'),
    ),
)
test_evaluator = dict(val_evaluator, ann_file=f'{data_root}/annotations/instances_test.json')
