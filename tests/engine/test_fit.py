"""What a pipeline does to the sizes of images, read before the first batch."""

import pytest
from mmcv.transforms import RandomChoiceResize, RandomResize, Resize

from evamm.datasets.detection import ResizeLongestEdge
from evamm.engine.runner.fit import _largest_side


@pytest.mark.parametrize(
    ('step', 'side'),
    [
        (ResizeLongestEdge(64), 64),
        (Resize(scale=(1333, 800), keep_ratio=True), 1333),
        (Resize(scale=640), 640),
        (Resize(scale_factor=0.5), None),
        (RandomResize(scale=(1024, 1024), ratio_range=(0.1, 2.0)), 2048),
        (RandomResize(scale=[(1333, 640), (1333, 800)]), 1333),
        (RandomChoiceResize(scales=[(480, 1333), (800, 1400)], keep_ratio=True), 1400),
        (object(), None),
    ],
)
def test_largest_side(step: object, side: int | None) -> None:
    assert _largest_side(step) == side
