"""cascade_mask_rcnn_eva02_tiny_digits.py, tested for its masks: 192 pixels, soft-NMS, maskness.

Command: python tools/test.py configs/digits/cascade_mask_rcnn_eva02_tiny_digits_seg.py \
    work_dirs/cascade_mask_rcnn_eva02_tiny_digits/iter_3900.pth
"""

_base_ = './cascade_mask_rcnn_eva02_tiny_digits_soft_nms.py'

# Scores times maskness, the mean of the mask probabilities above 0.5: better masks, not boxes.
model = dict(test_cfg=dict(rcnn=dict(maskness_thr=0.5)))
