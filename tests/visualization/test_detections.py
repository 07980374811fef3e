"""Pictures of boxes and masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evamm.visualization.detections import draw_detections, label_colour, save_detections

BOXES = np.array([[20, 30, 120, 90], [200, 150, 300.4, 260]])


@pytest.fixture
def image() -> np.ndarray:
    return np.full((400, 500, 3), 90, np.uint8)


def test_colours_of_neighbours_are_far_apart() -> None:
    colours = [np.array(label_colour(label)) for label in range(80)]
    for first, second in zip(colours, colours[1:], strict=False):
        assert np.abs(first - second).sum() > 100
    assert len({tuple(colour) for colour in colours}) == 80
    for label in range(80):  # light enough to be seen on dark ground, and no grey
        assert max(label_colour(label)) > 200 and np.ptp(label_colour(label)) > 100
    assert min(label_colour(3, 1)) > min(label_colour(3))


def test_boxes_lie_where_they_are(image: np.ndarray) -> None:
    drawn = np.asarray(draw_detections(image, BOXES, [1, 2], scores=[0.9, 0.4]))
    assert drawn.shape == image.shape
    for (left, top, right, bottom), label in zip(BOXES, (1, 2), strict=True):
        middle = round((left + right) / 2), round((top + bottom) / 2)
        for x, y in ((left, middle[1]), (right, middle[1]), (middle[0], bottom)):
            assert drawn[round(y), round(x)].tolist() == list(label_colour(label))
        assert drawn[middle[1], middle[0]].tolist() == [90, 90, 90]
    assert (drawn[300:] == 90).all()


def test_names_and_scores_are_written(image: np.ndarray) -> None:
    def plate(**options: object) -> np.ndarray:
        drawn = np.asarray(draw_detections(image, BOXES[1:], [0], **options))
        return drawn[120:150, 200:400]

    name = plate(names=['cat'])
    assert not np.array_equal(name, plate(names=['dog']))
    assert not np.array_equal(name, plate(names=['cat'], scores=[0.5]))
    assert not np.array_equal(plate(), plate(names=['cat']))
    # A plate ends where the picture does.
    wide = draw_detections(image, np.array([[450, 3, 499, 60]]), [0], names=['a long name'])
    assert (np.asarray(wide)[:, 499] == label_colour(0)).all(axis=1).any()


def test_masks_are_veils_and_the_best_lies_on_top(image: np.ndarray) -> None:
    masks = np.zeros((2, 400, 500), bool)
    masks[0, 40:80, 40:100] = masks[1, 60:200, 80:220] = True
    boxes = np.array([[40, 40, 100, 80], [80, 60, 220, 200]])
    before = image.copy()
    drawn = np.asarray(draw_detections(image, boxes, [1, 2], scores=[0.4, 0.9], masks=masks))
    assert (image == before).all()  # the caller's image is its own
    veils = [drawn[50, 60], drawn[150, 150]]
    for veil, label in zip(veils, (1, 2), strict=True):
        np.testing.assert_allclose(veil, 0.55 * 90 + 0.45 * np.array(label_colour(label)), atol=1)
    assert drawn[72, 81].tolist() == list(label_colour(2))  # the rim of the better one
    assert drawn[90, 60].tolist() == [90, 90, 90]


def test_objects_of_one_class_differ(image: np.ndarray) -> None:
    drawn = np.asarray(draw_detections(image, BOXES, [5, 5], scores=[0.3, 0.8]))
    assert drawn[250, 200].tolist() == list(label_colour(5))
    assert drawn[60, 20].tolist() == list(label_colour(5, 1))


def test_small_images_are_enlarged_and_nothing_is_fine(tmp_path: Path) -> None:
    small = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    nothing = save_detections(small, np.zeros((0, 4)), [], tmp_path / 'a/b.png')
    assert nothing.size == (320, 240)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a/b.png'))[::5, ::5], small)
    empty = draw_detections(small, np.array([[9, 9, 9, 9.0]]), [0], masks=np.zeros((1, 48, 64)))
    assert empty.size == (320, 240)  # a mask without a pixel and a box without area
