"""Masks of EVA-01-g (Objects365) on COCO at 1536 pixels.

Reproduces: `eva_coco_seg` of EVA-01/det/README.md.
Expected: mask AP 55.02 on val2017.
Command: bash tools/dist_test.sh \
    configs/eva_det/cascade_mask_rcnn_eva_giant_p16_o365_1536_coco_seg.py CHECKPOINT 8

The tables of relative positions stay those of 1280 pixels, the size of the training, and are
extrapolated.
"""

_base_ = './cascade_mask_rcnn_eva_giant_p16_o365_1280_64xb1_coco.py'

model = dict(
    data_preprocessor=dict(pad_size=1536),
    backbone=dict(relative_position_resize='geometric'),
    test_cfg=dict(
        rcnn=dict(
            # In place of NMS, no threshold of the scores, no limit per image.
            soft_nms=dict(method='linear', iou_threshold=0.6, class_wise=True, score_thr=0.0),
            # Scores times the sureness of the masks.
            maskness_thr=0.5,
        )
    ),
)

test_pipeline = [
    dict(type='evamm.LoadImageFromFile', orientation=True),
    dict(type='evamm.ResizeLongestEdge', size=1536, backend='pillow'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
