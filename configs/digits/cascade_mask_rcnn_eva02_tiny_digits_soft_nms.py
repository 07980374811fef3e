"""cascade_mask_rcnn_eva02_tiny_digits_192px.py, tested with soft-NMS in place of NMS.

Command: python tools/test.py configs/digits/cascade_mask_rcnn_eva02_tiny_digits_soft_nms.py \
    work_dirs/cascade_mask_rcnn_eva02_tiny_digits/iter_3900.pth
"""

_base_ = './cascade_mask_rcnn_eva02_tiny_digits_192px.py'

# No threshold of the scores, no limit per image; COCO's protocol takes the best 100.
model = dict(
    test_cfg=dict(
        rcnn=dict(soft_nms=dict(method='linear', iou_threshold=0.6, class_wise=True, score_thr=0.0))
    )
)
