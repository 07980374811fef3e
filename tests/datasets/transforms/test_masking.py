import hashlib
import random

import numpy as np
import pytest

# sha256 of 500 masks (np.packbits) that EVA-01/eva/masking_generator.py draws after
# random.seed(1): grid, masked patches, smallest and largest block.
OFFICIAL = {
    (16, 105, 16, None): 'e87705d9f573f5f5',
    ((14, 14), 75, 16, None): 'b4328bc603791964',
    ((10, 20), 60, 4, 30): 'dba2af8ddcb51be7',
    (16, 250, 200, None): '348021137901982d',
    (4, 7, 1, None): '05df2e75740cdd31',
    (7, 20, 4, 5): '64017d8a0d5bcfe9',
}


@pytest.mark.parametrize('settings', OFFICIAL, ids=str)
def test_blocks_are_the_official_ones(build, settings):
    grid, count, smallest, largest = settings
    masking = build(
        'evamm.BlockMasking',
        input_size=grid,
        num_masking_patches=count,
        min_num_patches=smallest,
        max_num_patches=largest,
    )
    random.seed(1)
    masks = np.stack([masking({})['mask'] for _ in range(500)])
    assert masks.dtype == bool
    assert masks.shape[1:] == ((grid, grid) if isinstance(grid, int) else grid)
    assert hashlib.sha256(np.packbits(masks).tobytes()).hexdigest()[:16] == OFFICIAL[settings]


def test_number_of_masked_patches_varies_as_in_the_official_code(build):
    masking = build('evamm.BlockMasking')
    random.seed(0)
    counts = np.array([masking({})['mask'].sum() for _ in range(20_000)])
    assert counts.mean() == pytest.approx(104.44, abs=0.05)
    assert counts.std() == pytest.approx(1.04, abs=0.05)
    assert counts.max() == 105
    assert 90 <= counts.min() <= 97
    assert (counts == 105).mean() == pytest.approx(0.653, abs=0.015)


@pytest.mark.parametrize(
    'settings',
    [
        dict(input_size=2, num_masking_patches=4, min_num_patches=4),
        dict(input_size=2, num_masking_patches=1, min_num_patches=1),
        dict(input_size=(2, 64), num_masking_patches=128, min_num_patches=128),
        dict(input_size=16, num_masking_patches=256, min_num_patches=1),
        dict(input_size=16, num_masking_patches=16, min_num_patches=200, max_num_patches=1),
        dict(input_size=3, min_aspect=1e-6, num_masking_patches=9, min_num_patches=1),
    ],
    ids=str,
)
def test_odd_settings_end_and_never_mask_too_much(build, settings):
    masking = build('evamm.BlockMasking', **settings)
    for _ in range(200):
        assert masking({})['mask'].sum() <= settings['num_masking_patches']


def test_random_masks_have_one_count_and_no_favourite_patch(build):
    masking = build('evamm.RandomMasking', input_size=(4, 8), mask_ratio=0.75)
    random.seed(0)
    masks = np.stack([masking({})['mask'] for _ in range(4000)])
    assert masks.shape == (4000, 4, 8)
    assert (masks.sum((1, 2)) == 24).all()
    np.testing.assert_allclose(masks.mean(0), 0.75, atol=0.03)


def test_even_pattern_masks_every_other_patch_in_row_major_order(build):
    mask = build('evamm.EvenMasking', input_size=(2, 3))({})['mask']
    np.testing.assert_array_equal(mask, [[True, False, True], [False, True, False]])


@pytest.mark.parametrize(
    ('type', 'settings', 'message'),
    [
        ('BlockMasking', dict(input_size=0), 'input_size=0'),
        ('BlockMasking', dict(input_size=(16, 16, 16)), 'input_size'),
        ('BlockMasking', dict(input_size=1, num_masking_patches=1), '2 x 2'),
        ('BlockMasking', dict(input_size=8), 'num_masking_patches=105'),
        ('BlockMasking', dict(min_num_patches=0), 'min_num_patches=0'),
        ('BlockMasking', dict(max_num_patches=300), 'max_num_patches=300'),
        ('BlockMasking', dict(min_aspect=0.0), 'min_aspect=0.0'),
        ('BlockMasking', dict(min_aspect=3.0), 'ordered'),
        ('RandomMasking', dict(mask_ratio=1.0), 'mask_ratio=1.0'),
        ('RandomMasking', dict(mask_ratio=0.001), 'mask_ratio=0.001'),
    ],
)
def test_settings_without_sense_are_named(build, type, settings, message):
    with pytest.raises(ValueError, match=message.replace('(', r'\(')):
        build(f'evamm.{type}', **settings)
