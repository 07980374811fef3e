"""What is nearest to what: images found for a text, and texts found for an image."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from .canvas import ACCENT, BACKGROUND, MUTED, TEXT, TRACK, fit, font, shorten, wrap

_GAP = 16
_CELL = 168
_TEXT_PANEL = 240
_BARS = 430
_BAR_ROW = 38


def draw_images_of_texts(
    texts: Sequence[str],
    images: Sequence[np.ndarray],
    scores: np.ndarray,
    *,
    topk: int = 5,
    names: Sequence[str] | None = None,
) -> Image.Image:
    """One row per text: the text, and the images nearest to it, best first.

    Args:
        texts: The T queries.
        images: RGB images, uint8 [H, W, 3] each, N of them.
        scores: Cosines, [T, N].
        topk: Images per text; all, where there are fewer.
        names: What to write under an image beside its score.
    """
    _check(scores, (len(texts), len(images)))
    count = min(topk, len(images))
    row = _CELL + 26 + _GAP
    picture = Image.new(
        'RGB',
        (_GAP + _TEXT_PANEL + count * (_CELL + _GAP) + _GAP, _GAP + len(texts) * row),
        BACKGROUND,
    )
    draw = ImageDraw.Draw(picture)
    fitted = {}
    for number, (text, line) in enumerate(zip(texts, scores, strict=True)):
        top = _GAP + number * row
        _draw_text(draw, text, (_GAP, top + _CELL / 2), _TEXT_PANEL - 2 * _GAP)
        for place, index in enumerate(np.argsort(-line, kind='stable')[:count]):
            if index not in fitted:
                fitted[index] = fit(images[index], _CELL, _CELL)
            thumb = fitted[index]
            left = _GAP + _TEXT_PANEL + place * (_CELL + _GAP)
            corner = (left + (_CELL - thumb.width) // 2, top + (_CELL - thumb.height) // 2)
            picture.paste(thumb, corner)
            if place == 0:
                x, y = corner
                draw.rectangle(
                    (x - 3, y - 3, x + thumb.width + 2, y + thumb.height + 2),
                    outline=ACCENT,
                    width=3,
                )
            score = f'{line[index]:.3f}'
            y = top + _CELL + 6
            draw.text((left, y), score, ACCENT if place == 0 else TEXT, font(13))
            if names is not None:
                room = _CELL - font(13).getlength(score) - 10
                draw.text(
                    (left + _CELL, y),
                    shorten(names[index], room, font(13)),
                    MUTED,
                    font(13),
                    anchor='ra',
                )
    return picture


def draw_texts_of_images(
    images: Sequence[np.ndarray],
    texts: Sequence[str],
    scores: np.ndarray,
    *,
    logit_scale: float = 100.0,
    topk: int = 5,
    side: int = 220,
) -> Image.Image:
    """One row per image: the image, and the texts nearest to it with bars, best first.

    A bar is the share of a text in the softmax over all texts; the number is the cosine.

    Args:
        images: RGB images, uint8 [H, W, 3] each, N of them.
        texts: The T candidates.
        scores: Cosines, [N, T].
        logit_scale: Factor of the cosines before the softmax.
        topk: Texts per image; all, where there are fewer.
        side: Longest side of an image in the picture, in pixels.
    """
    _check(scores, (len(images), len(texts)))
    count = min(topk, len(texts))
    height = max(side, count * _BAR_ROW) + _GAP
    picture = Image.new('RGB', (3 * _GAP + side + _BARS, _GAP + len(images) * height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    left, right = 2 * _GAP + side, picture.width - _GAP
    for number, (image, line) in enumerate(zip(images, scores, strict=True)):
        top = _GAP + number * height
        middle = top + (height - _GAP) // 2
        thumb = fit(image, side, side)
        corner = (_GAP + (side - thumb.width) // 2, middle - thumb.height // 2)
        picture.paste(thumb, corner)
        shares = np.exp(logit_scale * (line - line.max()))
        shares = shares / shares.sum()
        y = middle - count * _BAR_ROW // 2
        for place, index in enumerate(np.argsort(-line, kind='stable')[:count]):
            score = f'{line[index]:.3f}'
            room = right - left - font(14).getlength(score) - 12
            colour = TEXT if place == 0 else MUTED
            draw.text((left, y), shorten(texts[index], room, font(14)), colour, font(14))
            draw.text((right, y), score, MUTED, font(14), anchor='ra')
            bar = y + 22
            draw.rounded_rectangle((left, bar, right, bar + 6), 3, TRACK)
            length = round((right - left) * float(shares[index]))
            if length >= 6:
                fill = ACCENT if place == 0 else MUTED
                draw.rounded_rectangle((left, bar, left + length, bar + 6), 3, fill)
            y += _BAR_ROW
    return picture


def _draw_text(
    draw: ImageDraw.ImageDraw, text: str, left_middle: tuple[float, float], width: float
) -> None:
    lines = wrap(text, width, font(17), lines=6)
    x, middle = left_middle
    for number, line in enumerate(lines):
        draw.text((x, middle + (number - len(lines) / 2) * 24), line, TEXT, font(17))


def _check(scores: np.ndarray, shape: tuple[int, int]) -> None:
    if 0 in shape:
        raise ValueError('A gallery needs at least one image and one text.')
    if scores.shape != shape:
        raise ValueError(f'scores must be {list(shape)}, found {list(scores.shape)}.')
