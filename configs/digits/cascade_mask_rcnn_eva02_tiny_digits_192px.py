"""cascade_mask_rcnn_eva02_tiny_digits.py, tested on larger images: shown at 192 pixels.

As EVA-01 is trained at 1280 pixels and tested at 1536. For testing; train with the other config.
Command: python tools/test.py configs/digits/cascade_mask_rcnn_eva02_tiny_digits_192px.py \
    work_dirs/cascade_mask_rcnn_eva02_tiny_digits/iter_3900.pth
"""

_base_ = './cascade_mask_rcnn_eva02_tiny_digits.py'

model = dict(data_preprocessor=dict(pad_size=192))

test_pipeline = _base_.test_pipeline
test_pipeline[1].size = 192
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
