"""Operation by operation equal to mmpretrain's, bit by bit, from the same random numbers."""

import numpy as np
import pytest
from mmpretrain.datasets.transforms.auto_augment import RANDAUG_POLICIES

from evamm.datasets.transforms.rand_augment import FASTER, RandAugment

POLICIES = RANDAUG_POLICIES['timm_increasing']
SETTINGS = dict(
    policies='timm_increasing',
    num_policies=2,
    total_level=10,
    magnitude_level=9,
    magnitude_std=0.5,
    hparams=dict(pad_val=[104, 117, 123], interpolation='bicubic'),
)


def pictures(bgr: np.ndarray) -> dict[str, np.ndarray]:
    noise = np.random.RandomState(0).randint(0, 256, (20, 31, 3)).astype(np.uint8)
    one = np.zeros((16, 16, 3), np.uint8)
    one[3, 4] = (9, 200, 31)
    return {
        'photograph': bgr,
        'dull': bgr // 3 + 40,
        'noise': noise,
        'every value': np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2),
        'one colour': np.full((8, 9, 3), 77, np.uint8),
        'two colours': one,
        'black': np.zeros((8, 9, 3), np.uint8),
        'white': np.full((8, 9, 3), 255, np.uint8),
        'one pixel': np.full((1, 1, 3), (5, 6, 7), np.uint8),
    }


@pytest.mark.parametrize('name', sorted(FASTER))
def test_operation_is_mmpretrains(build, bgr, name):
    policy = next(dict(policy) for policy in POLICIES if policy['type'] == name)
    del policy['type']
    if 'magnitude_range' in policy:
        policy.update(magnitude_level=6, magnitude_std='inf', total_level=10)
    ours = build(f'evamm.{name}', prob=0.8, **policy)
    theirs = build(name, prob=0.8, **policy)
    assert type(ours).__module__.startswith('evamm.')
    changed = 0
    for label, picture in pictures(bgr).items():
        for seed in range(12):
            np.random.seed(seed)
            wanted = theirs(dict(img=picture.copy()))['img']
            np.random.seed(seed)
            given = picture.copy()
            result = ours(dict(img=given))['img']
            np.testing.assert_array_equal(result, wanted, err_msg=f'{label}, seed {seed}')
            np.testing.assert_array_equal(given, picture)  # not changed in place
            changed += (result != picture).any()
    assert changed > 20


FIXED = [
    ('Solarize', dict(thr=0)),
    ('Solarize', dict(thr=256)),
    ('Solarize', dict(thr=100.5)),
    ('SolarizeAdd', dict(magnitude=110)),
    ('SolarizeAdd', dict(magnitude=33.3, thr=90)),
    ('Posterize', dict(bits=8)),
    ('Posterize', dict(bits=0)),
    ('Brightness', dict(magnitude=-1.0)),
    ('Brightness', dict(magnitude=4.0)),
    ('Contrast', dict(magnitude=-1.0)),
    ('Contrast', dict(magnitude=3.0)),
    ('ColorTransform', dict(magnitude=2.0)),
]


@pytest.mark.parametrize('name,strength', FIXED)
def test_fixed_strengths(build, bgr, name, strength):
    for picture in pictures(bgr).values():
        ours = build(f'evamm.{name}', prob=1.0, **strength)
        theirs = build(name, prob=1.0, **strength)
        np.random.seed(5)
        wanted = theirs(dict(img=picture))['img']
        np.random.seed(5)
        np.testing.assert_array_equal(ours(dict(img=picture))['img'], wanted)


def test_solarize_add_stops_at_white(build):
    """As in timm; mmpretrain begins again at 0 if the magnitude is a large whole number."""
    image = np.full((2, 2, 3), 120, np.uint8)
    assert (
        build('evamm.SolarizeAdd', prob=1.0, magnitude=200)(dict(img=image))['img'] == 255
    ).all()
    assert (build('SolarizeAdd', prob=1.0, magnitude=200)(dict(img=image))['img'] == 64).all()


def test_whole_policy_is_mmpretrains(build, bgr):
    ours = build('evamm.RandAugment', **SETTINGS)
    theirs = build('RandAugment', **SETTINGS)
    image = np.ascontiguousarray(bgr[:48, :64])
    results = []
    for seed in range(60):
        np.random.seed(seed)
        wanted = theirs(dict(img=image.copy()))['img']
        np.random.seed(seed)
        results.append(ours(dict(img=image.copy()))['img'])
        np.testing.assert_array_equal(results[-1], wanted, err_msg=f'seed {seed}')
    assert len({result.tobytes() for result in results}) > 30


def test_presets_use_the_faster_operations_and_others_stay(build):
    ours = build('evamm.RandAugment', **SETTINGS)
    modules = {type(t).__name__: type(t).__module__.partition('.')[0] for t in ours.transforms}
    assert {name for name, module in modules.items() if module == 'evamm'} == FASTER
    assert modules['Rotate'] == modules['Shear'] == 'mmpretrain'


def test_unknown_preset():
    with pytest.raises(ValueError, match=r"timm_increasing.*found 'strong'"):
        RandAugment(policies='strong', num_policies=2, magnitude_level=9)
