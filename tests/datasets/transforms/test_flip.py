import numpy as np
import pytest
from mmcv.transforms.utils import cache_random_params


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


@pytest.mark.parametrize(
    'settings',
    [
        dict(prob=0.3, direction='vertical'),
        dict(prob=0.0),
        dict(prob=1.0),
        dict(prob=0.7, direction=['horizontal', 'vertical', 'diagonal']),
        dict(prob=[0.1, 0.2, 0.3], direction=['horizontal', 'vertical', 'diagonal']),
        dict(prob=[0.1, 0.9], direction=['vertical', 'horizontal']),
    ],
)
def test_draws_are_those_of_mmcv(build, settings):
    draws = []
    for name in ('evamm.RandomFlip', 'RandomFlip'):
        flip = build(name, **settings)
        np.random.seed(0)
        draws.append([flip._choose_direction() for _ in range(500)] + [np.random.random()])
    assert draws[0] == draws[1]


def test_several_images_can_share_one_draw(build, bgr):
    for name in ('evamm.RandomFlip', 'RandomFlip'):
        flip = build(name, prob=0.5)
        np.random.seed(0)
        directions = set()
        for _ in range(8):
            with cache_random_params(flip):
                shared = {flip(dict(img=bgr))['flip_direction'] for _ in range(3)}
            assert len(shared) == 1
            directions |= shared
        assert directions == {'horizontal', None}
