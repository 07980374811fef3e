"""The resize filter of torch against Pillow's, and the crops against mmpretrain's."""

import numpy as np
import pytest
from PIL import Image

from evamm.datasets.transforms import RandomResizedCrop, ResizeEdge
from evamm.datasets.transforms.resize import resize_image

FILTERS = {'bicubic': Image.Resampling.BICUBIC, 'bilinear': Image.Resampling.BILINEAR}


def pillow(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """Width first, then height: the order of torch and of Pillow before 13."""
    wide = Image.fromarray(image).resize((size[1], image.shape[0]), FILTERS[interpolation])
    return np.asarray(wide.resize(size[::-1], FILTERS[interpolation]))


def assert_equal_to_rounding(ours: np.ndarray, wanted: np.ndarray, levels: int = 1) -> None:
    assert ours.shape == wanted.shape and ours.dtype == np.uint8
    off = np.abs(ours.astype(int) - wanted)
    assert off.max() <= levels
    assert (off > 0).mean() <= 0.01 or (off > 0).sum() <= 3


SIZES = [
    ((120, 161), (56, 56)),
    ((120, 161), (224, 224)),  # larger
    ((119, 83), (57, 33)),
    ((120, 161), (120, 56)),  # one side stays
    ((120, 161), (120, 161)),  # both stay
    ((1, 40), (16, 16)),
    ((40, 1), (16, 16)),
    ((1, 1), (16, 16)),
    ((90, 120), (1, 7)),
    ((120, 2), (3, 5)),
]


@pytest.mark.parametrize('interpolation', FILTERS)
@pytest.mark.parametrize('shape,size', SIZES)
def test_filter_is_pillows(bgr, shape, size, interpolation):
    image = np.ascontiguousarray(bgr[: shape[0], : shape[1]])
    assert image.shape[:2] == shape
    wanted = pillow(image, size, interpolation)
    ours = resize_image(image, size, interpolation, 'torch')
    assert ours.flags.c_contiguous
    assert_equal_to_rounding(ours, wanted)
    exact = resize_image(image, size, interpolation, 'pillow')
    direct = Image.fromarray(image).resize(size[::-1], FILTERS[interpolation])
    np.testing.assert_array_equal(exact, direct)


@pytest.mark.parametrize('size', [(48, 48), (48, 96), (96, 48), (96, 96)])
def test_the_worst_picture_is_off_by_two_levels(size):
    """Black and white noise overshoots in both passes; each may round the other way."""
    image = np.random.RandomState(0).randint(0, 2, (64, 64, 3)).astype(np.uint8) * 255
    ours = resize_image(image, size, 'bicubic', 'torch')
    assert_equal_to_rounding(ours, pillow(image, size, 'bicubic'), levels=2)


def test_grey_image_keeps_its_shape(bgr):
    grey = np.ascontiguousarray(bgr[..., 0])
    ours = resize_image(grey, (50, 60), 'bicubic', 'torch')
    assert_equal_to_rounding(ours, pillow(grey, (50, 60), 'bicubic'))
    one = resize_image(grey[..., None], (50, 60), 'bicubic', 'torch')
    np.testing.assert_array_equal(one, ours[..., None])


def test_a_crop_is_resized_without_its_surroundings(bgr):
    """The official code cuts first: the filter must not reach over the border of the crop."""
    crop = bgr[30:90, 20:140]
    surrounded = bgr.copy()
    surrounded[:30] = surrounded[90:] = 255
    surrounded[:, :20] = surrounded[:, 140:] = 0
    ours = resize_image(surrounded[30:90, 20:140], (32, 32), 'bicubic', 'torch')
    np.testing.assert_array_equal(ours, resize_image(crop, (32, 32), 'bicubic', 'torch'))
    assert_equal_to_rounding(ours, pillow(np.ascontiguousarray(crop), (32, 32), 'bicubic'))


@pytest.mark.parametrize('shape', [(120, 161), (40, 161), (161, 13), (1, 9), (9, 1), (1, 1)])
@pytest.mark.parametrize('backend', ['torch', 'pillow'])
def test_crops_are_those_of_mmpretrain(build, bgr, shape, backend):
    tall = np.ascontiguousarray(bgr.transpose(1, 0, 2))
    image = (bgr if shape[0] <= 120 else tall)[: shape[0], : shape[1]]
    settings = dict(scale=48, crop_ratio_range=(0.08, 1.0), interpolation='bicubic')
    ours = build('evamm.RandomResizedCrop', backend=backend, **settings)
    theirs = build('RandomResizedCrop', backend='pillow', **settings)
    for seed in range(8):
        np.random.seed(seed)
        wanted = theirs(dict(img=image))['img']
        state = np.random.get_state()[1:3]
        np.random.seed(seed)
        results = ours(dict(img=image))
        assert_equal_to_rounding(results['img'], wanted)
        assert results['img_shape'] == (48, 48)
        np.testing.assert_equal(np.random.get_state()[1:3], state)  # as many numbers drawn


def test_crop_to_a_rectangle(build, bgr):
    crop = build('evamm.RandomResizedCrop', scale=(32, 64))
    assert crop(dict(img=bgr))['img'].shape == (32, 64, 3)


@pytest.mark.parametrize('shape', [(120, 161), (161, 120), (100, 100), (1, 30)])
@pytest.mark.parametrize('edge', ['short', 'long', 'width', 'height'])
def test_edges_are_those_of_mmpretrain(build, bgr, shape, edge):
    tall = np.ascontiguousarray(bgr.transpose(1, 0, 2))
    image = np.ascontiguousarray((bgr if shape[0] <= 120 else tall)[: shape[0], : shape[1]])
    settings = dict(scale=47, edge=edge, interpolation='bicubic')
    if min(shape) == 1 and edge in ('long', 'width'):
        pytest.skip('mmpretrain makes a side of 1 pixel shorter than one pixel')
    wanted = build('ResizeEdge', backend='pillow', **settings)(dict(img=image))
    exact = build('evamm.ResizeEdge', backend='pillow', **settings)(dict(img=image))
    np.testing.assert_array_equal(exact.pop('img'), wanted['img'])
    fast = build('evamm.ResizeEdge', **settings)(dict(img=image))
    assert_equal_to_rounding(fast.pop('img'), wanted.pop('img'))
    assert fast == exact == wanted  # scale, scale_factor and img_shape


@pytest.mark.parametrize('transform', [RandomResizedCrop, ResizeEdge])
def test_settings_are_checked(transform):
    with pytest.raises(ValueError, match=r"backend.*'torch', 'pillow', 'cv2'.*found 'tensorflow'"):
        transform(scale=224, backend='tensorflow')
    with pytest.raises(ValueError, match=r"interpolation.*found 'lanczos'; backend \"pillow\""):
        transform(scale=224, interpolation='lanczos')
    transform(scale=224, interpolation='lanczos', backend='pillow')
