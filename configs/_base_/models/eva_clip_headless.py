"""Image tower of an EVA-CLIP pair without its projection: one vector per image.

`model.extract_feat(images)` gives the class token after the last norm.
"""

_base_ = './eva_headless.py'

model = dict(backbone=dict(out_type='cls_token'))
