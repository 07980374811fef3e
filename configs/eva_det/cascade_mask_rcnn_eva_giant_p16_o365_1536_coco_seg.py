"""Masks of EVA-01-g (Objects365) on COCO at 1536 pixels.

Reproduces: `eva_coco_seg` of EVA-01/det/README.md.
Expected: mask AP 55.02 on val2017.
Command: bash tools/dist_test.sh \
    configs/eva_det/cascade_mask_rcnn_eva_giant_p16_o365_1536_coco_seg.py CHECKPOINT 8

For testing, as the config of the boxes.
"""

_base_ = './cascade_mask_rcnn_eva_giant_p16_o365_1536_coco_det.py'

# Scores times the mean of the mask probabilities above 0.5: better masks, less good boxes.
model = dict(test_cfg=dict(rcnn=dict(maskness_thr=0.5)))
