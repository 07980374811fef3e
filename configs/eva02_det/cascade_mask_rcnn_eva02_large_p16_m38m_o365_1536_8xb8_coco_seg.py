"""Masks of EVA-02-L (Objects365) on COCO at 1536 pixels: the evaluation with maskness.

Reproduces: `eva02_L_coco_seg_sys_o365` of EVA-02/det/README.md.
Expected: mask AP 55.36 on val2017, with the average of the file (EMA).
Command: bash tools/dist_test.sh \
    configs/eva02_det/cascade_mask_rcnn_eva02_large_p16_m38m_o365_1536_8xb8_coco_seg.py CHECKPOINT 8
"""

_base_ = './cascade_mask_rcnn_eva02_large_p16_m38m_o365_1536_8xb8_coco.py'

# Scores times the mean of the mask probabilities above 0.5: better masks, less good boxes.
model = dict(test_cfg=dict(rcnn=dict(maskness_thr=0.5)))
