"""Pictures of masked image modelling: what is shown is what was masked, wanted and predicted."""

import numpy as np
import pytest
import torch

from evamm.visualization.canvas import TRACK
from evamm.visualization.masked import (
    draw_masked_images,
    enlarge_patches,
    heat_colours,
    hide_patches,
    masked_images,
)

MASKS = [np.eye(4, 6, dtype=bool), np.zeros((4, 6), bool)]
MASKS[1][1:3, 2:5] = True


def make(noise: float) -> list:
    """Two images of 40 x 60 pixels; predictions are the targets with noise, and twice as long."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(2, 24, 16, generator=generator)
    flat = torch.from_numpy(np.stack(MASKS).reshape(2, -1))
    predictions = 2 * targets[flat] + noise * torch.randn(10, 16, generator=generator)
    images = [np.full((40, 60, 3), value, np.uint8) for value in (50, 200)]
    return masked_images(images, MASKS, targets, predictions, ['one.png', 'two.png'])


def test_patches_are_hidden_where_the_mask_is():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    hidden = hide_patches(image, MASKS[1], colour=(1, 2, 3))
    np.testing.assert_array_equal(hidden[10:30, 20:50], np.broadcast_to([1, 2, 3], (20, 30, 3)))
    untouched = np.ones((40, 60), bool)
    untouched[10:30, 20:50] = False
    np.testing.assert_array_equal(hidden[untouched], image[untouched])
    half = hide_patches(
        np.full((40, 60, 3), 100, np.uint8), MASKS[1], strength=0.5, colour=(0,) * 3
    )
    assert set(np.unique(half)) == {50, 100}


def test_patches_fill_pictures_that_are_no_multiple():
    patches = enlarge_patches(np.array([[0, 1], [2, 3]]), 5, 7)
    assert patches.shape == (5, 7)
    assert patches[0, 0] == 0 and patches[0, -1] == 1 and patches[-1, 0] == 2
    assert len(np.unique(patches)) == 4


def test_a_perfect_prediction_has_the_colours_of_its_target_whatever_its_length():
    for row, mask in zip(make(noise=0.0), MASKS, strict=True):
        np.testing.assert_array_equal(row.prediction[mask], row.target[mask])
        np.testing.assert_allclose(row.cosines[mask], 1, atol=1e-6)
        assert np.isnan(row.cosines[~mask]).all()
        assert len(np.unique(row.target.reshape(-1, 3), axis=0)) > 10


def test_a_bad_prediction_has_others_and_its_cosine():
    row = make(noise=3.0)[1]
    assert (row.prediction[MASKS[1]] != row.target[MASKS[1]]).any(axis=-1).all()
    assert -1 <= np.nanmin(row.cosines) < np.nanmax(row.cosines) < 0.99


def test_order_of_images_and_patches_is_kept():
    """A prediction of one image must not be compared with a target of another."""
    targets = torch.eye(48).reshape(2, 24, 48)
    flat = torch.from_numpy(np.stack(MASKS).reshape(2, -1))
    images = [np.zeros((40, 60, 3), np.uint8)] * 2
    rows = masked_images(images, MASKS, targets, targets[flat])
    assert all(np.nanmin(row.cosines) > 0.999 for row in rows)
    shifted = masked_images(images, MASKS, targets, targets[flat].roll(1, 0))
    assert all(np.nanmax(row.cosines) < 1e-3 for row in shifted)


def test_sheet_shows_each_thing_in_its_place():
    rows = make(noise=0.0)
    sheet = np.asarray(draw_masked_images(rows, cell=60)).astype(int)
    top, lefts = 12 + 24, [12 + index * (60 + 12) for index in range(5)]

    def cell(column: int, row: int) -> np.ndarray:
        y = top + row * (40 + 24 + 12)
        return sheet[y : y + 40, lefts[column] : lefts[column] + 60]

    assert (cell(0, 0) == 50).all() and (cell(0, 1) == 200).all()
    covered = (cell(1, 1) != 200).any(axis=-1)
    np.testing.assert_array_equal(
        covered[5::10, 5::10],
        MASKS[1],  # the middle of each patch
    )
    np.testing.assert_array_equal(cell(2, 1)[5::10, 5::10], rows[1].target)
    prediction = cell(3, 1)[5::10, 5::10]
    np.testing.assert_array_equal(prediction[MASKS[1]], rows[1].target[MASKS[1]])
    assert (prediction[~MASKS[1]] == TRACK).all()
    assert (cell(4, 0)[5::10, 5::10][~MASKS[0]] == TRACK).all()
    bright = cell(4, 0)[5::10, 5::10][MASKS[0]].sum(-1)
    assert (bright > 550).all()  # cosines of 1, the upper end of the scale


def test_heat_rises_with_the_number():
    brightness = heat_colours(np.array([-1.0, 0.0, 0.5, 1.0, 2.0]), 0, 1).astype(int).sum(-1)
    assert brightness[0] == brightness[1] < brightness[2] < brightness[3] == brightness[4]


def test_numbers_that_do_not_agree_are_named():
    images = [np.zeros((40, 60, 3), np.uint8)] * 2
    with pytest.raises(ValueError, match='with 10 masked need as many'):
        masked_images(images, MASKS, torch.zeros(2, 24, 8), torch.zeros(9, 8))
    with pytest.raises(ValueError, match='at least one image'):
        draw_masked_images([])
