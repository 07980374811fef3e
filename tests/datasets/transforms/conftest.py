from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from mmcv.transforms import BaseTransform
from mmengine.registry import DefaultScope
from PIL import Image

from evamm.registry import TRANSFORMS


@pytest.fixture(scope='session')
def photo() -> Image.Image:
    """A photograph of 161 x 120 pixels, RGB."""
    return Image.fromarray(skimage.data.coffee()).resize((161, 120), Image.Resampling.LANCZOS)


@pytest.fixture(scope='session')
def bgr(photo: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(photo)[..., ::-1])


@pytest.fixture(scope='session')
def build() -> Callable[..., BaseTransform]:
    """A transform as a config of mmpretrain builds it."""

    def build(type: str, **settings) -> BaseTransform:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return TRANSFORMS.build(dict(type=type, **settings))

    return build
