"""Masks of EVA-02-B on COCO at 1536 pixels: the evaluation with maskness.

Reproduces: `eva02_B_coco_sys` of EVA-02/det/README.md.
Expected: mask AP 50.69 on val2017.
Command: bash tools/dist_test.sh \
    configs/eva02_det/cascade_mask_rcnn_eva02_base_p16_1536_16xb8_coco_seg.py CHECKPOINT 8
"""

_base_ = './cascade_mask_rcnn_eva02_base_p16_1536_16xb8_coco.py'

# Scores times the mean of the mask probabilities above 0.5: better masks, less good boxes.
model = dict(test_cfg=dict(rcnn=dict(maskness_thr=0.5)))
