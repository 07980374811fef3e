"""Pictures of masked image modelling: what is hidden, what is wanted, what is predicted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from .canvas import BACKGROUND, MUTED, TEXT, TRACK, font, shorten
from .features import PrincipalColours

_GAP = 12
_HEAD = 44
_LINE = 24
_BAR = 14
COLUMNS = ('input', 'what the model sees', 'target', 'prediction', 'cosine')


def hide_patches(
    image: np.ndarray, mask: np.ndarray, *, strength: float = 1.0, colour: tuple = (118, 122, 130)
) -> np.ndarray:
    """Covers the masked patches of an image.

    Args:
        image: RGB image, uint8 [H, W, 3].
        mask: bool [h, w], True where a patch is masked.
        strength: 1 hides a patch altogether, less lets it shine through.
        colour: What covers it.
    """
    cover = enlarge_patches(np.asarray(mask, bool), image.shape[0], image.shape[1])[..., None]
    covered = image * (1 - strength) + np.asarray(colour, np.float32) * strength
    return np.where(cover, covered.round(), image).astype(np.uint8)


def enlarge_patches(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Values of patches [h, w, ...] as pixels [height, width, ...], in whole blocks."""
    rows = np.arange(height) * values.shape[0] // height
    columns = np.arange(width) * values.shape[1] // width
    return values[rows][:, columns]


def heat_colours(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colours of numbers from ``low`` (dark) to ``high`` (bright), uint8 [..., 3]."""
    from matplotlib import colormaps

    shares = (np.asarray(values, np.float64) - low) / max(high - low, 1e-12)
    return (colormaps['inferno'](shares.clip(0, 1))[..., :3] * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class MaskedImage:
    """One row of the sheet.

    Args:
        image: The crop as the model gets it, RGB, uint8 [H, W, 3].
        mask: bool [h, w], True where a patch is masked.
        target: Colours of the targets of all patches, uint8 [h, w, 3].
        prediction: Colours of the predictions, uint8 [h, w, 3]; visible patches have none.
        cosines: Cosine of each prediction to its target, [h, w]; NaN at visible patches.
        name: What to write under the crop.
    """

    image: np.ndarray
    mask: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    cosines: np.ndarray
    name: str = ''


def masked_images(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    targets: Tensor,
    predictions: Tensor,
    names: Sequence[str] | None = None,
) -> list[MaskedImage]:
    """Turns features into colours, the same for targets and predictions of all images.

    The directions that become colours are those of the targets, without the length of a feature:
    the loss is about directions only.

    Args:
        images: B RGB images, uint8 [H, W, 3] each.
        masks: B masks, bool [h, w] each.
        targets: Features of all patches, [B, N, T].
        predictions: Features of the masked patches, image by image, [M, T].
        names: One per image.

    Raises:
        ValueError: The numbers of patches do not agree.
    """
    grid = masks[0].shape
    flat = torch.from_numpy(np.stack(masks).reshape(len(masks), -1))  # [B, N]
    if targets.shape[:2] != flat.shape or len(predictions) != int(flat.sum()):
        raise ValueError(
            f'{tuple(flat.shape)} patches with {int(flat.sum())} masked need as many targets and '
            f'predictions; found {tuple(targets.shape)} and {tuple(predictions.shape)}.'
        )
    targets = F.normalize(targets.detach().float().cpu(), dim=-1)
    predictions = F.normalize(predictions.detach().float().cpu(), dim=-1)
    to_colours = PrincipalColours(targets.flatten(0, 1))
    wanted = to_colours(targets.flatten(0, 1)).reshape(len(masks), *grid, 3)
    found = np.zeros((*flat.shape, 3), np.uint8)
    found[flat.numpy()] = to_colours(predictions)
    cosines = np.full(flat.shape, np.nan, np.float32)
    cosines[flat.numpy()] = (predictions * targets[flat]).sum(dim=-1).numpy()
    return [
        MaskedImage(
            image=image,
            mask=mask,
            target=wanted[index],
            prediction=found[index].reshape(*grid, 3),
            cosines=cosines[index].reshape(grid),
            name=names[index] if names else '',
        )
        for index, (image, mask) in enumerate(zip(images, masks, strict=True))
    ]


def draw_masked_images(
    rows: Sequence[MaskedImage], *, title: str = '', cell: int = 224
) -> Image.Image:
    """A sheet with one row per image: crop, mask, target, prediction and cosine.

    Args:
        rows: What :func:`masked_images` made.
        title: Text above the sheet.
        cell: Longer side of a picture in pixels.
    """
    if not rows:
        raise ValueError('A sheet needs at least one image.')
    height, width = rows[0].image.shape[:2]
    scale = cell / max(height, width)
    height, width = round(height * scale), round(width * scale)
    low, high = _range(np.concatenate([row.cosines[row.mask] for row in rows]))
    top = _GAP + (_HEAD - _GAP if title else 0) + _LINE
    pitch = height + _LINE + _GAP
    sheet = Image.new(
        'RGB',
        (_GAP + len(COLUMNS) * (width + _GAP) + _BAR + 48, top + len(rows) * pitch),
        BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    if title:
        room = sheet.width - 2 * _GAP
        draw.text((_GAP, 12), shorten(title, room, font(17, bold=True)), TEXT, font(17, bold=True))
    lefts = [_GAP + index * (width + _GAP) for index in range(len(COLUMNS))]
    for left, name in zip(lefts, COLUMNS, strict=True):
        draw.text((left, top - _LINE), shorten(name, width, font(13)), MUTED, font(13))
    for number, row in enumerate(rows):
        y = top + number * pitch
        for left, picture in zip(lefts, _pictures(row, low, high, height, width), strict=True):
            sheet.paste(picture, (left, y))
        count, total = int(row.mask.sum()), row.mask.size
        mean = float(np.nanmean(row.cosines)) if count else float('nan')
        notes = {0: row.name, 1: f'{count} of {total} masked', 4: f'mean {mean:.3f}'}
        for index, note in notes.items():
            place = (lefts[index], y + height + 4)
            draw.text(place, shorten(note, width, font(13)), TEXT, font(13))
    _draw_scale(sheet, draw, lefts[-1] + width + _GAP, top, height, low, high)
    return sheet


def _range(cosines: np.ndarray) -> tuple[float, float]:
    """Ends of the colour scale: tenths around the values."""
    cosines = cosines[np.isfinite(cosines)]
    if not len(cosines):
        return 0.0, 1.0
    low = min(np.floor(np.quantile(cosines, 0.02) * 10) / 10, 0.9)
    high = min(np.ceil(np.quantile(cosines, 0.98) * 10) / 10, 1.0)
    return float(low), float(max(high, low + 0.1))


def _pictures(
    row: MaskedImage, low: float, high: float, height: int, width: int
) -> list[Image.Image]:
    """The pictures of one row in the order of :data:`COLUMNS`."""
    nothing = np.asarray(TRACK, np.uint8)
    hidden = row.mask[..., None]
    prediction = np.where(hidden, row.prediction, nothing)
    heat = np.where(hidden, heat_colours(np.nan_to_num(row.cosines), low, high), nothing)
    smooth = Image.Resampling.LANCZOS
    return [
        *(
            Image.fromarray(image).resize((width, height), smooth)
            for image in (row.image, hide_patches(row.image, row.mask))
        ),
        *(
            Image.fromarray(enlarge_patches(colours.astype(np.uint8), height, width))
            for colours in (row.target, prediction, heat)
        ),
    ]


def _draw_scale(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    left: int,
    top: int,
    height: int,
    low: float,
    high: float,
) -> None:
    """The colours of the cosines, beside the first row."""
    values = np.linspace(high, low, height)
    bar = np.repeat(heat_colours(values, low, high)[:, None], _BAR, axis=1)
    sheet.paste(Image.fromarray(bar), (left, top))
    for value, y, anchor in ((high, top, 'la'), (low, top + height, 'ld')):
        draw.text((left + _BAR + 5, y), f'{value:.1f}', MUTED, font(13), anchor=anchor)
