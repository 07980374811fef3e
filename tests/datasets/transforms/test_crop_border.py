import numpy as np
import pytest

from evamm.datasets import CropBorder


def test_cuts_every_side():
    image = np.arange(6 * 5 * 3).reshape(6, 5, 3)
    results = CropBorder(pixels=2)(dict(img=image, img_shape=(6, 5)))
    np.testing.assert_array_equal(results['img'], image[2:4, 2:3])
    assert results['img_shape'] == (2, 1)


def test_too_small_image_and_bad_width():
    with pytest.raises(ValueError, match=r'bird.png is 4x6, too small to cut 2 pixels'):
        CropBorder(pixels=2)(dict(img=np.zeros((6, 4, 3)), img_path='bird.png'))
    with pytest.raises(ValueError, match='at least 1, found 0'):
        CropBorder(pixels=0)
