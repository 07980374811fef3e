"""An image with the classes that a model sees in it."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .canvas import ACCENT, BACKGROUND, MUTED, TEXT, TRACK, fit, font, shorten

_PANEL = 340
_MARGIN = 20
_ROW = 44


def top_classes(
    scores: np.ndarray, topk: int, classes: Sequence[str] | None = None
) -> list[tuple[int, float, str]]:
    """The `topk` classes, best first: label, score, and name (the label where names are unknown).

    Args:
        scores: One score per class, [C].
        topk: How many; all of them where there are fewer.
        classes: Names of the C classes.
    """
    order = np.argsort(-scores, kind='stable')[:topk]
    return [
        (int(i), float(scores[i]), classes[i] if classes is not None else f'class {i}')
        for i in order
    ]


def draw_prediction(
    image: np.ndarray,
    scores: np.ndarray,
    *,
    classes: Sequence[str] | None = None,
    topk: int = 5,
    side: int = 480,
) -> Image.Image:
    """Draws the image and, beside it, bars for its best classes.

    Args:
        image: RGB image, uint8 [H, W, 3].
        scores: Probability of each class, [C].
        classes: Names of the C classes.
        topk: Number of bars.
        side: Longest side of the image in the picture, in pixels.
    """
    best = top_classes(scores, topk, classes)
    fitted = fit(image, side, side)
    needed = 2 * _MARGIN + 66 + _ROW * len(best)
    height = max(fitted.height, needed)
    picture = Image.new('RGB', (fitted.width + _PANEL, height), BACKGROUND)
    picture.paste(fitted, (0, (height - fitted.height) // 2))
    draw = ImageDraw.Draw(picture)
    left, right = fitted.width + _MARGIN, picture.width - _MARGIN
    y = (height - needed) // 2 + _MARGIN
    _, score, name = best[0]
    headline = name.split(',')[0]  # ImageNet names list synonyms
    draw.text(
        (left, y), shorten(headline, right - left, font(21, bold=True)), TEXT, font(21, bold=True)
    )
    draw.text((left, y + 30), f'{score:.1%}', ACCENT, font(17))
    y += 66
    for rank, (_, score, name) in enumerate(best):
        percent = f'{score:.1%}'
        room = right - left - font(13).getlength(percent) - 12
        draw.text((left, y), shorten(name, room, font(13)), TEXT if rank == 0 else MUTED, font(13))
        draw.text((right, y), percent, MUTED, font(13), anchor='ra')
        bar = y + 21
        draw.rounded_rectangle((left, bar, right, bar + 8), 4, TRACK)
        length = round((right - left) * score)
        if length >= 8:
            draw.rounded_rectangle(
                (left, bar, left + length, bar + 8), 4, ACCENT if rank == 0 else MUTED
            )
        elif length:
            draw.rectangle((left, bar + 1, left + length, bar + 7), ACCENT if not rank else MUTED)
        y += _ROW
    return picture


def save_prediction(
    image: np.ndarray,
    scores: np.ndarray,
    path: str | os.PathLike,
    *,
    classes: Sequence[str] | None = None,
    topk: int = 5,
) -> None:
    """Writes `draw_prediction` as a PNG, making its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_prediction(image, scores, classes=classes, topk=topk).save(path)


def picture_paths(names: Sequence[str], folder: str | os.PathLike) -> list[str]:
    """One PNG path in `folder` per name; images of the same name in two folders do not collide.

    Raises:
        FileExistsError: A picture would take the place of one of the images.
    """
    images = {os.path.realpath(name) for name in names if os.path.exists(name)}
    taken: set[str] = set()
    paths = []
    for name in names:
        stem = Path(name).stem.replace(' ', '_') or 'image'
        unique, number = stem, 2
        while unique.lower() in taken:
            unique, number = f'{stem}_{number}', number + 1
        taken.add(unique.lower())
        paths.append(os.path.join(folder, f'{unique}.png'))
        if os.path.realpath(paths[-1]) in images:
            raise FileExistsError(
                f'{paths[-1]} is one of the images, and a picture would overwrite it; choose '
                'another folder for the pictures.'
            )
    return paths
