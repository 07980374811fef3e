"""Pipelines of detection at 1024 pixels: large-scale jitter, longer side of 1024 in the test."""

# Turned upright by its EXIF data, as in the official code.
_load = dict(type='evamm.LoadImageFromFile', orientation=True)

train_pipeline = [
    _load,
    dict(type='evamm.LoadDetAnnotations', with_mask=True),
    dict(type='evamm.RandomDetFlip', prob=0.5),
    # Boxes are put around what the crop left of the masks.
    dict(type='evamm.LargeScaleJitter', size=1024, scale_range=(0.1, 2.0), recompute_boxes=True),
    dict(type='PackDetInputs'),
]

# Without masks; boxes are cut to the crop.
train_pipeline_boxes = [
    _load,
    dict(type='evamm.LoadDetAnnotations'),
    dict(type='evamm.RandomDetFlip', prob=0.5),
    dict(type='evamm.LargeScaleJitter', size=1024, scale_range=(0.1, 2.0), recompute_boxes=False),
    dict(type='PackDetInputs'),
]

test_pipeline = [
    _load,
    # Pillow's bits. 'torch' takes half the time and may differ by one grey level of 255.
    dict(type='evamm.ResizeLongestEdge', size=1024, backend='pillow'),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
