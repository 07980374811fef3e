"""Pictures of one or two coloured digits, and sentences that say what is in them."""

from typing import NamedTuple

import numpy as np
from PIL import Image

SCENE_SIZE = 40
WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
COLOURS = {
    'red': (235, 60, 50),
    'green': (60, 190, 70),
    'blue': (70, 110, 245),
    'yellow': (240, 215, 50),
}

# Where the centre of a digit lies, in parts of the picture: (x, y).
_CENTRES = {
    'one': ((0.5, 0.5),),
    'beside': ((0.26, 0.5), (0.74, 0.5)),
    'stacked': ((0.5, 0.26), (0.5, 0.74)),
}
# Side of a digit in pixels; one that is alone is large.
_SIDES = {'one': 34, 'beside': 20, 'stacked': 20}

# Training and testing share their words, not their sentences.
TRAIN_SENTENCES = {
    'one': (
        'a {first}',
        'a {digit}',
        'the number {digit}',
        'the digit {digit}',
        'the number {digit} in {colour}',
        'a picture of a {first}',
        'there is a {digit}',
        'a large {first}',
        'a large {digit} in {colour}',
    ),
    'beside': (
        'a {first} left of a {second}',
        'a {second} right of a {first}',
        'a {first} on the left and a {second} on the right',
        'a picture of a {first} left of a {second}',
        'there is a {second} right of a {first}',
        'a {digit} left of a {second_digit}',
    ),
    'stacked': (
        'a {first} above a {second}',
        'a {second} below a {first}',
        'a {first} at the top and a {second} at the bottom',
        'a picture of a {first} above a {second}',
        'there is a {second} below a {first}',
        'a {second_digit} below a {digit}',
    ),
}
TEST_SENTENCES = {
    'one': (
        'a picture of a large {first}',
        'there is a large {first}',
        'the {colour} digit {digit}',
    ),
    'beside': (
        'a {second} on the right and a {first} on the left',
        'on the left a {first}, on the right a {second}',
        'there is a {first} left of a {second}',
    ),
    'stacked': (
        'a {second} at the bottom and a {first} at the top',
        'at the top a {first}, at the bottom a {second}',
        'there is a {first} above a {second}',
    ),
}
# For the class names of a zero-shot classifier; not among the sentences of training either.
ZERO_SHOT_SENTENCES = (
    'a picture of the number {}',
    'a picture of the digit {}',
    'there is the number {}',
)


class Scene(NamedTuple):
    """What is in a picture.

    Args:
        layout: 'one', 'beside' (left and right) or 'stacked' (top and bottom).
        digits: One or two digits; the left or upper one first.
        colours: Name of the colour of each.
    """

    layout: str
    digits: tuple[int, ...]
    colours: tuple[str, ...]


def draw_scene(rng: np.random.Generator, single: float = 0.6) -> Scene:
    """A random scene; ``single`` is the share of those with one digit."""
    names = list(COLOURS)
    if rng.random() < single:
        return Scene('one', (int(rng.integers(10)),), (names[rng.integers(len(names))],))
    layout = ('beside', 'stacked')[rng.integers(2)]
    digits = tuple(rng.integers(10, size=2).tolist())
    return Scene(layout, digits, tuple(names[i] for i in rng.integers(len(names), size=2)))


def describe(scene: Scene, sentence: str) -> str:
    """A sentence of :data:`TRAIN_SENTENCES` or :data:`TEST_SENTENCES` about a scene."""
    words = [WORDS[digit] for digit in scene.digits]
    full = [f'{colour} {word}' for colour, word in zip(scene.colours, words, strict=True)]
    text = sentence.format(
        first=full[0],
        second=full[-1],
        digit=words[0],
        second_digit=words[-1],
        colour=scene.colours[0],
    )
    # What "a" becomes before a vowel.
    return text.replace('a eight', 'an eight')


def paint(scene: Scene, glyphs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A picture of a scene.

    Args:
        scene: What to paint.
        glyphs: Image of every digit, uint8 [28, 28], 0 = background.
        rng: Decides on background and exact places.

    Returns:
        RGB, uint8 [40, 40, 3].
    """
    canvas = np.empty((SCENE_SIZE, SCENE_SIZE, 3), np.float64)
    canvas[:] = rng.uniform(0, 50, 3)
    side = _SIDES[scene.layout]
    centres = _CENTRES[scene.layout]
    for glyph, colour, centre in zip(glyphs, scene.colours, centres, strict=True):
        ink = Image.fromarray(glyph[4:24, 4:24])  # the margins of 28 x 28 are empty
        ink = np.asarray(ink.resize((side, side), Image.Resampling.BICUBIC))[..., None] / 255
        column, row = (
            int(round(part * SCENE_SIZE - side / 2 + rng.uniform(-1.5, 1.5))) for part in centre
        )
        row, column = (min(max(at, 0), SCENE_SIZE - side) for at in (row, column))
        area = canvas[row : row + side, column : column + side]
        shade = np.array(COLOURS[colour]) * rng.uniform(0.85, 1.05)
        area += ink * (shade - area)
    return canvas.round().clip(0, 255).astype(np.uint8)
