"""ViTDet with boxes only and the 365 classes of Objects365."""

_base_ = './cascade_mask_rcnn_eva.py'

model = dict(roi_head=dict(bbox_head=dict(num_classes=365), mask_head=None))
