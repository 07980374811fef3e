"""Pictures have the right pixels in the right places."""

from pathlib import Path

import numpy as np
import pytest

from evamm.visualization.canvas import contact_sheet, fit, font, shorten
from evamm.visualization.predictions import draw_prediction, picture_paths, top_classes


def solid(colour: tuple[int, int, int], height: int = 40, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_contact_sheet_keeps_the_order_of_rows() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    sheet = np.asarray(contact_sheet([solid(c) for c in colours], ['x'] * 5, columns=3, cell=40))
    found = []
    for row in range(2):
        for column in range(3):
            x = 12 + column * 52 + 20
            y = 12 + row * (40 + 12 + 20) + 20
            found.append(tuple(sheet[y, x].tolist()))
    assert found[:5] == colours
    assert found[5] not in colours  # an empty cell


def test_contact_sheet_draws_captions_and_title() -> None:
    images = [solid((9, 9, 9))]
    plain = np.asarray(contact_sheet(images, ['']))
    lettered = np.asarray(contact_sheet(images, ['two\nlines'], title='title'))
    assert lettered.shape[0] > plain.shape[0]
    assert (lettered > 200).any()
    assert not (plain > 200).any()
    with pytest.raises(ValueError, match='at least one image'):
        contact_sheet([])


def test_tiny_images_are_enlarged_in_blocks_and_photos_smoothly() -> None:
    checker = np.indices((28, 28)).sum(0) % 2 * 255
    tiny = np.asarray(fit(np.repeat(checker[..., None], 3, 2).astype(np.uint8), 280, 280))
    assert set(np.unique(tiny)) == {0, 255}
    assert fit(solid((1, 2, 3), 100, 200), 50, 50).size == (50, 25)


def test_text_is_cut_to_its_width() -> None:
    assert shorten('short', 500, font(13)) == 'short'
    cut = shorten('a very long name, with synonyms', 80, font(13))
    assert cut.endswith('…')
    assert font(13).getlength(cut) <= 80


def test_best_classes_are_sorted_and_named() -> None:
    scores = np.array([0.1, 0.6, 0.3])
    assert top_classes(scores, 2, ['a', 'b', 'c']) == [(1, 0.6, 'b'), (2, 0.3, 'c')]
    assert [name for _, _, name in top_classes(scores, 9)] == ['class 1', 'class 2', 'class 0']


def test_bars_are_as_long_as_the_scores() -> None:
    """The first bar is drawn in the accent colour; its length is score x the panel's width."""
    from evamm.visualization.canvas import ACCENT

    lengths = []
    for score in (0.25, 0.5, 1.0):
        picture = np.asarray(
            draw_prediction(solid((0, 0, 0), 480, 480), np.array([score, 0, 0]), topk=1)
        )
        lengths.append((picture == ACCENT).all(-1).sum(axis=1).max())
    assert lengths == [pytest.approx(300 * share, abs=2) for share in (0.25, 0.5, 1.0)]


def test_the_image_is_shown_beside_the_panel() -> None:
    picture = draw_prediction(solid((10, 200, 30), 300, 600), np.array([0.9, 0.1]), topk=2)
    pixels = np.asarray(picture)
    assert picture.size == (480 + 340, 240)
    assert tuple(pixels[120, 240]) == (10, 200, 30)
    assert tuple(pixels[120, 480 + 335]) != (10, 200, 30)


def test_pictures_of_one_name_do_not_overwrite_each_other() -> None:
    paths = picture_paths(['a/x.jpg', 'b/x.png', 'b/X.png', 'image 3'], 'out')
    assert paths == ['out/x.png', 'out/x_2.png', 'out/X_3.png', 'out/image_3.png']


def test_pictures_never_take_the_place_of_their_images(tmp_path: Path) -> None:
    photo, other = tmp_path / 'photo.png', tmp_path / 'other.jpg'
    photo.touch(), other.touch()
    with pytest.raises(FileExistsError, match=r'photo\.png'):
        picture_paths([str(other), str(photo)], tmp_path)
    assert picture_paths([str(other)], tmp_path) == [str(tmp_path / 'other.png')]
