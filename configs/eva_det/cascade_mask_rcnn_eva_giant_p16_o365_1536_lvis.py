"""EVA-01-g (Objects365) on LVIS v1 at 1536 pixels.

Reproduces: `eva_lvis` of EVA-01/det/README.md.
Expected: box AP 62.17, mask AP 54.98 on LVIS v1 val (NMS).
Command: bash tools/dist_test.sh \
    configs/eva_det/cascade_mask_rcnn_eva_giant_p16_o365_1536_lvis.py CHECKPOINT 8

For testing; train with cascade_mask_rcnn_eva_giant_p16_o365_1280_64xb1_lvis.py, whose crops have
1280 pixels: here they would be filled up to 1536. The tables of relative positions stay those of
1280 pixels and are extrapolated.
"""

_base_ = './cascade_mask_rcnn_eva_giant_p16_o365_1280_64xb1_lvis.py'

model = dict(
    data_preprocessor=dict(pad_size=1536),
    backbone=dict(relative_position_resize='geometric'),
    test_cfg=dict(
        rcnn=dict(
            score_thr=0.001,
            max_per_img=1000,
            # Scores times the mean of the mask probabilities above 0.5.
            maskness_thr=0.5,
        )
    ),
)

test_pipeline = _base_.test_pipeline
test_pipeline[1].size = 1536
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(max_dets=1000)
test_evaluator = dict(max_dets=1000)
