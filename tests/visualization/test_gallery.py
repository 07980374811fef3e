"""Galleries show the right pictures in the right places."""

import numpy as np
import pytest

from evamm.visualization.canvas import ACCENT, font, wrap
from evamm.visualization.gallery import draw_images_of_texts, draw_texts_of_images

COLOURS = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 30)]
IMAGES = [np.full((70, 70 + 40 * i, 3), colour, np.uint8) for i, colour in enumerate(COLOURS)]


def where(picture, colour):
    """Middle of all pixels of a colour, (x, y); None if there are few."""
    pixels = np.asarray(picture).astype(int)
    ys, xs = np.nonzero(np.abs(pixels - colour).max(axis=2) <= 3)
    return (xs.mean(), ys.mean()) if len(xs) > 500 else None


def test_best_images_from_left_to_right():
    scores = np.array([[0.1, 0.3, 0.2, 0.0]])
    picture = draw_images_of_texts(['a text'], IMAGES, scores, topk=3)
    places = [where(picture, COLOURS[i]) for i in (1, 2, 0)]
    assert places[0][0] < places[1][0] < places[2][0]
    assert where(picture, COLOURS[3]) is None
    accent = np.abs(np.asarray(picture).astype(int) - ACCENT).max(axis=2) <= 3
    xs = np.nonzero(accent.sum(axis=0) > 50)[0]  # the upright sides of the frame
    assert xs.min() < places[0][0] < xs.max() < places[1][0]


def test_a_row_for_each_text():
    scores = np.array([[0.1, 0.3, 0.2, 0.0], [0.9, 0.3, 0.2, 0.0]])
    picture = draw_images_of_texts(['one', 'two'], IMAGES, scores, topk=1, names=list('abcd'))
    assert where(picture, COLOURS[1])[1] < where(picture, COLOURS[0])[1]
    assert where(picture, COLOURS[2]) is None


def test_bars_of_texts_are_their_shares():
    scores = np.log(np.array([[0.2, 0.5, 0.3], [0.98, 0.01, 0.01]])) / 10
    picture = draw_texts_of_images(
        IMAGES[:2], ['x', 'y', 'z'], scores, logit_scale=10, topk=3, side=120
    )
    assert where(picture, COLOURS[0])[1] < where(picture, COLOURS[1])[1]
    accent = np.abs(np.asarray(picture).astype(int) - ACCENT).max(axis=2) <= 3
    half = picture.height // 2
    room = picture.width - 2 * 16 - 120 - 16
    for part, share in ((accent[:half], 0.5), (accent[half:], 0.98)):
        assert part.sum(axis=1).max() == pytest.approx(room * share, abs=3)


def test_fewer_than_asked_for():
    scores = np.array([[0.1, 0.3]])
    few = draw_images_of_texts(['a'], IMAGES[:2], scores, topk=2)
    assert draw_images_of_texts(['a'], IMAGES[:2], scores, topk=9).size == few.size


def test_wrapped_text_keeps_its_words_and_its_width():
    text = 'a photograph of a very small bird upon a branch in the morning sun'
    lines = wrap(text, 150, font(17), lines=10)
    assert ' '.join(lines) == text
    assert all(font(17).getlength(line) <= 150 for line in lines)
    assert len(lines) > 3
    cut = wrap(text, 150, font(17), lines=2)
    assert cut[0] == lines[0] and cut[1].endswith('…') and len(cut) == 2
    assert wrap('', 150, font(17)) == ['']
    assert font(17).getlength(wrap('x' * 99, 150, font(17))[0]) <= 150


@pytest.mark.parametrize('draw', [draw_images_of_texts, draw_texts_of_images])
def test_wrong_scores_are_explained(draw):
    with pytest.raises(ValueError, match='at least one image and one text'):
        draw([], [], np.zeros((0, 0)))
    queries, answers = (['a'], IMAGES) if draw is draw_images_of_texts else (IMAGES, ['a'])
    with pytest.raises(ValueError, match=r'scores must be .* found \[2, 2\]'):
        draw(queries, answers, np.zeros((2, 2)))
