"""Drawing basics shared by every picture: fonts, colours, fitted images and text."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (22, 24, 29)
TEXT = (236, 239, 244)
MUTED = (148, 156, 170)
ACCENT = (86, 156, 255)
TRACK = (48, 52, 62)

_TINY = 64  # images up to this side are enlarged in whole blocks, so that their pixels show


@lru_cache(maxsize=32)
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib ships and which knows most alphabets; else PIL's own."""
    try:
        import matplotlib

        name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
        path = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / name
        return ImageFont.truetype(str(path), size)
    except (ImportError, OSError):
        return ImageFont.load_default(size)


def shorten(text: str, width: float, text_font: ImageFont.FreeTypeFont) -> str:
    """`text`, cut and ended by an ellipsis where it is wider than `width` pixels."""
    text = ' '.join(text.split())
    if text_font.getlength(text) <= width:
        return text
    while text and text_font.getlength(f'{text}…') > width:
        text = text[:-1]
    return f'{text.rstrip(" ,;")}…'


def wrap(text: str, width: float, text_font: ImageFont.FreeTypeFont, lines: int = 4) -> list[str]:
    """`text` in at most `lines` lines of `width` pixels; the last one ends by an ellipsis."""
    words, wrapped = text.split(), []
    while words and len(wrapped) < lines - 1:
        line = words.pop(0)
        while words and text_font.getlength(f'{line} {words[0]}') <= width:
            line = f'{line} {words.pop(0)}'
        wrapped.append(shorten(line, width, text_font))
    return [*wrapped, shorten(' '.join(words), width, text_font)] if words else wrapped or ['']


def fit(image: np.ndarray | Image.Image, width: int, height: int) -> Image.Image:
    """Scales an RGB image to fill (width, height) as far as its shape allows."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    scale = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    tiny = max(image.size) <= _TINY and scale > 1
    return image.resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.LANCZOS)


def contact_sheet(
    images: list[np.ndarray],
    captions: list[str] | None = None,
    *,
    title: str | None = None,
    columns: int | None = None,
    cell: int = 224,
) -> Image.Image:
    """Many images in a grid, each with a caption of one or more lines under it.

    Args:
        images: RGB images, uint8 [H, W, 3] each.
        captions: One text per image.
        title: Text above the grid.
        columns: Images per row; by default a sheet about as wide as it is high.
        cell: Side of the square that an image is fitted into, in pixels.
    """
    if not images:
        raise ValueError('A contact sheet needs at least one image.')
    captions = captions or [''] * len(images)
    columns = min(columns or max(1, round(len(images) ** 0.5 * 1.2)), len(images))
    rows = -(-len(images) // columns)
    gap, line = 12, 20
    lines = max(len(caption.splitlines()) for caption in captions)
    head = 44 if title else gap
    pitch = cell + gap + lines * line
    sheet = Image.new(
        'RGB', (gap + columns * (cell + gap), head + rows * pitch + gap // 2), BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text(
            (gap, 12),
            shorten(title, sheet.width - 2 * gap, font(17, bold=True)),
            TEXT,
            font(17, bold=True),
        )
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x = gap + index % columns * (cell + gap)
        y = head + index // columns * pitch
        fitted = fit(image, cell, cell)
        sheet.paste(fitted, (x + (cell - fitted.width) // 2, y + (cell - fitted.height) // 2))
        for number, text in enumerate(caption.splitlines()):
            draw.text(
                (x, y + cell + 3 + number * line),
                shorten(text, cell, font(13)),
                TEXT if number == 0 else MUTED,
                font(13),
            )
    return sheet
