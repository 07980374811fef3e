"""ImageNet-1K validation images at 336 pixels, for zero-shot tests while something else trains."""

_base_ = './imagenet_zero_shot_224.py'

zero_shot_pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.ResizeEdge', scale=336, interpolation='bicubic', backend='pillow'),
    dict(type='CenterCrop', crop_size=336),
    dict(type='evamm.PackInputs'),
]

val_dataloader = dict(dataset=dict(pipeline=zero_shot_pipeline))
test_dataloader = val_dataloader
