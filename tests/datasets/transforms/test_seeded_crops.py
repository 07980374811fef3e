import random

import numpy as np
import pytest

from evamm.datasets.feature_cache import (
    CacheMeta,
    FeatureCacheError,
    ShardWriter,
    create_cache,
    hash_paths,
)

CROPS = [
    dict(type='evamm.RandomFlip', prob=0.5),
    dict(type='evamm.RandomResizedCrop', scale=32, crop_ratio_range=(0.2, 1.0)),
]


@pytest.fixture
def crops(build):
    return build('evamm.SeededCrops', transforms=CROPS, num_views=3, seed=5)


def sample(bgr: np.ndarray, path: str = 'a.png', **more) -> dict:
    return dict(img=bgr.copy(), img_path=path, **more)


def test_a_view_is_the_same_whatever_was_drawn_before(crops, bgr):
    images = []
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        images.append(crops(sample(bgr, crop_view=1))['img'])
    np.testing.assert_array_equal(*images)
    for other in (sample(bgr, crop_view=2), sample(bgr, 'b.png', crop_view=1)):
        assert not np.array_equal(crops(other)['img'], images[0])


def test_views_are_drawn_and_what_follows_draws_as_ever(crops, bgr):
    random.seed(0)
    np.random.seed(0)
    views, after = [], []
    for _ in range(40):
        views.append(crops(sample(bgr))['crop_view'])
        after.append(np.random.rand())
    assert set(views) == {0, 1, 2}
    np.random.seed(0)
    np.testing.assert_array_equal(after, np.random.rand(40))
    random.seed(0)
    assert views == [random.randrange(3) for _ in range(40)]


def test_data_may_move_if_the_root_is_left_out(build, bgr):
    images = []
    for root in ('/disk/a', '/other/b'):
        crops = build('evamm.SeededCrops', transforms=CROPS, num_views=1, root=root)
        images.append(crops(sample(bgr, f'{root}/x/1.png'))['img'])
    np.testing.assert_array_equal(*images)
    with pytest.raises(ValueError, match='does not begin with root'):
        crops(sample(bgr, '/elsewhere/1.png'))


def test_no_views_make_no_sense(build):
    with pytest.raises(ValueError, match='num_views=0'):
        build('evamm.SeededCrops', transforms=CROPS, num_views=0)


@pytest.fixture
def cache(crops, tmp_path):
    meta = CacheMeta(
        images=1,
        tokens=4,
        dims=2,
        num_views=3,
        seed=5,
        crops=crops.text,
        teacher='t',
        teacher_sha256='',
        dtype='float16',
        shard_size=1,
        paths_sha256=hash_paths(['a.png']),
    )
    create_cache(tmp_path, meta, ['a.png'])
    writer = ShardWriter(tmp_path, 0)
    for view in range(3):
        writer.write(0, view, np.arange(8.0).reshape(4, 2) + 100 * view)
    writer.finish()
    return tmp_path


def test_targets_are_those_of_the_view_and_the_mask(build, crops, cache, bgr):
    load = build('evamm.LoadTeacherFeatures', cache=str(cache))
    results = crops(sample(bgr, crop_view=2))
    results['mask'] = np.array([[False, True], [True, False]])
    np.testing.assert_array_equal(load(results)['target'], [[202, 203], [204, 205]])
    every = build('evamm.LoadTeacherFeatures', cache=str(cache), masked_only=False)
    assert every(crops(sample(bgr, crop_view=0)))['target'].shape == (4, 2)


def test_other_crops_and_missing_transforms_are_named(build, crops, cache, bgr):
    load = build('evamm.LoadTeacherFeatures', cache=str(cache))
    with pytest.raises(KeyError, match=r'put evamm\.SeededCrops before'):
        load(sample(bgr, mask=np.ones((2, 2), bool)))
    with pytest.raises(KeyError, match=r'put evamm\.BlockMasking before'):
        load(crops(sample(bgr)))
    other = build('evamm.SeededCrops', transforms=CROPS, num_views=3, seed=6)
    results = other(sample(bgr))
    results['mask'] = np.ones((2, 2), bool)
    with pytest.raises(FeatureCacheError, match='other crops'):
        load(results)
