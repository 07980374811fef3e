"""cascade_mask_rcnn_eva02_tiny_digits.py, tested for its masks: soft-NMS and maskness.

Command: python tools/test.py configs/digits/cascade_mask_rcnn_eva02_tiny_digits_seg.py \
    work_dirs/cascade_mask_rcnn_eva02_tiny_digits/iter_2300.pth
"""

_base_ = './cascade_mask_rcnn_eva02_tiny_digits_soft_nms.py'

# Scores times the sureness of the masks: better masks, less good boxes.
model = dict(test_cfg=dict(rcnn=dict(maskness_thr=0.5)))
