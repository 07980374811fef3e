"""Boxes of EVA-01-g (Objects365) on COCO at 1536 pixels.

Reproduces: `eva_coco_det` of EVA-01/det/README.md.
Expected: box AP 64.16 on val2017.
Command: bash tools/dist_test.sh \
    configs/eva_det/cascade_mask_rcnn_eva_giant_p16_o365_1536_coco_det.py CHECKPOINT 8

For testing; train with cascade_mask_rcnn_eva_giant_p16_o365_1280_64xb1_coco.py, whose crops have
1280 pixels: here they would be filled up to 1536. The tables of relative positions stay those of
1280 pixels and are extrapolated.
"""

_base_ = './cascade_mask_rcnn_eva_giant_p16_o365_1280_64xb1_coco.py'

model = dict(
    data_preprocessor=dict(pad_size=1536),
    backbone=dict(relative_position_resize='geometric'),
    test_cfg=dict(
        rcnn=dict(
            # In place of NMS, no threshold of the scores, no limit per image.
            soft_nms=dict(method='linear', iou_threshold=0.6, class_wise=True, score_thr=0.0),
        )
    ),
)

test_pipeline = _base_.test_pipeline
test_pipeline[1].size = 1536
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
