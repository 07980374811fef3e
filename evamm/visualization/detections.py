"""An image with the boxes, masks and names of what a detector found, or of what is annotated."""

import colorsys
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .canvas import font

_SMALL = 320  # smaller pictures are enlarged in whole steps, so that names can be read
_OPACITY = 0.45


_SHADES = (0.0, 0.4, 0.65)  # of white


def label_colour(label: int, shade: int = 0) -> tuple[int, int, int]:
    """A strong RGB colour for a class; the same one in every picture, neighbours far apart.

    Args:
        label: The class.
        shade: 0 is the colour itself; others are lighter, to tell objects of one class apart.
    """
    hue = (0.58 + label * 0.6180339887498949) % 1  # steps of the golden ratio never come close
    value = (1.0, 0.8, 0.92)[label % 3]
    white = _SHADES[shade % len(_SHADES)]
    channels = colorsys.hsv_to_rgb(hue, 0.78, value)
    return tuple(round(255 * (part * (1 - white) + white)) for part in channels)


def draw_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    *,
    scores: Sequence[float] | None = None,
    masks: Sequence[np.ndarray] | None = None,
    names: Sequence[str] | None = None,
) -> Image.Image:
    """Draws boxes over an image; the best ones last, so that they lie on top.

    Args:
        image: RGB image, uint8 [H, W, 3].
        boxes: Corners x1, y1, x2, y2 in pixels, [N, 4].
        labels: Class of each box, [N].
        scores: Score of each box, [N]; None for annotations.
        masks: Pixels of each object, [H, W] of bool.
        names: Names of all classes; None writes their numbers.
    """
    height, width = image.shape[:2]
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind='stable')
    colours = _colours(labels, order)
    if masks is not None:
        image = _blend(image, masks, colours, order)
    scale = max(1, -(-_SMALL // max(height, width)))
    picture = Image.fromarray(image)
    if scale > 1:
        picture = picture.resize((width * scale, height * scale), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    side = max(picture.size)
    line = max(2, round(side / 400))
    text_font = font(max(12, round(side / 60)), bold=True)
    for index in order:
        left, top, right, bottom = (float(value) * scale for value in boxes[index])
        right, bottom = max(right, left), max(bottom, top)
        draw.rectangle((left, top, right, bottom), outline=colours[index], width=line)
    for index in order:  # above all boxes
        label = int(labels[index])
        text = names[label] if names is not None else f'class {label}'
        if scores is not None:
            text = f'{text} {scores[index]:.2f}'
        corner = float(boxes[index][0]) * scale, float(boxes[index][1]) * scale
        _write(draw, picture.size, corner, text, colours[index], text_font)
    return picture


def save_detections(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    path: str | os.PathLike,
    *,
    scores: Sequence[float] | None = None,
    masks: Sequence[np.ndarray] | None = None,
    names: Sequence[str] | None = None,
) -> Image.Image:
    """Writes `draw_detections` as a PNG, making its folder; gives the picture."""
    picture = draw_detections(image, boxes, labels, scores=scores, masks=masks, names=names)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return picture


def _colours(labels: Sequence[int], order: Sequence[int]) -> dict[int, tuple[int, int, int]]:
    """Colour of each object: of its class, the best one (the last to be drawn) the strongest."""
    colours, seen = {}, {}
    for index in reversed(order):
        label = int(labels[index])
        colours[index] = label_colour(label, seen.get(label, 0))
        seen[label] = seen.get(label, 0) + 1
    return colours


def _blend(
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    colours: dict[int, tuple[int, int, int]],
    order: Sequence[int],
) -> np.ndarray:
    """The image with each mask as a veil of its colour, and a line around it."""
    image = image.copy()
    for index in order:
        mask = np.asarray(masks[index], bool)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        part, colour = mask[window], np.asarray(colours[index], np.float32)
        pixels = image[window]  # a view
        veiled = pixels[part] * (1 - _OPACITY) + colour * _OPACITY
        pixels[part] = veiled.round().astype(np.uint8)
        pixels[_border(part)] = colour.astype(np.uint8)
    return image


def _border(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask [h, w] that have a neighbour outside of it."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _write(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[float, float],
    text: str,
    colour: tuple[int, int, int],
    text_font: object,
) -> None:
    """A label on a plate of its colour, above the corner, or inside the picture where it ends."""
    margin = 3
    width = text_font.getlength(text) + 2 * margin
    height = sum(text_font.getmetrics()) + 1
    left = min(max(0.0, corner[0]), max(0.0, size[0] - width))
    top = corner[1] - height if corner[1] >= height else max(0.0, corner[1])
    top = min(top, size[1] - height)
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    bright = np.dot(colour, (0.299, 0.587, 0.114)) > 140
    draw.text((left + margin, top), text, fill=(15, 15, 15) if bright else 'white', font=text_font)
