import numpy as np
import pytest


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
@pytest.mark.parametrize('channels', [1, 3, None])
def test_flips_are_those_of_mmcv(build, bgr, direction, channels):
    image = bgr[..., 0] if channels is None else np.ascontiguousarray(bgr[..., :channels])
    ours = build('evamm.RandomFlip', prob=0.5, direction=direction)
    theirs = build('RandomFlip', prob=0.5, direction=direction)
    flips = set()
    for seed in range(8):
        np.random.seed(seed)
        wanted = theirs(dict(img=image.copy()))
        np.random.seed(seed)
        results = ours(dict(img=image.copy()))
        assert results['img'].flags.c_contiguous
        np.testing.assert_array_equal(results.pop('img'), wanted.pop('img'))
        assert results == wanted
        flips.add(results['flip'])
    assert flips == {True, False}


def test_boxes_are_flipped_too(build, bgr):
    results = build('evamm.RandomFlip', prob=1.0)(
        dict(img=bgr, gt_bboxes=np.array([[10.0, 5.0, 30.0, 25.0]]))
    )
    np.testing.assert_array_equal(results['gt_bboxes'], [[131.0, 5.0, 151.0, 25.0]])
    np.testing.assert_array_equal(results['img'], bgr[:, ::-1])
