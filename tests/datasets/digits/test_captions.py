"""Digit scenes with captions: what is written is what is said, and nothing of the test is seen."""

import functools
import hashlib
import json
import re
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evamm.datasets import ImageTextShards
from evamm.datasets.digits import captions, load_digits, stratified_split, write_captions
from evamm.datasets.digits.scenes import (
    COLOURS,
    SCENE_SIZE,
    TEST_SENTENCES,
    TRAIN_SENTENCES,
    WORDS,
    ZERO_SHOT_SENTENCES,
    Scene,
    describe,
    draw_scene,
    paint,
)


@pytest.fixture(autouse=True, scope='module')
def read_source_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captions, 'load_digits', functools.cache(load_digits))
        patch.setattr(captions, 'TEST_SCENES', 100)
        yield


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits')
    assert write_captions(root, shards=2, per_shard=60)
    return root / 'captions'


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob('*')):
        total.update(str(path.relative_to(folder)).encode())
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()


def test_it_is_a_function_of_the_seed_and_written_once(folder, tmp_path):
    assert not write_captions(folder.parent, shards=2, per_shard=60)
    assert write_captions(tmp_path, shards=2, per_shard=60)
    assert digest(tmp_path / 'captions') == digest(folder)
    assert write_captions(tmp_path, seed=1, shards=2, per_shard=60)
    assert digest(tmp_path / 'captions') != digest(folder)


def test_shards_hold_pairs(folder, tmp_path):
    assert sorted(path.name for path in folder.glob('train/*')) == [
        'shard-00000.tar',
        'shard-00001.tar',
    ]
    with tarfile.open(folder / 'train' / 'shard-00001.tar') as tar:
        names = tar.getnames()
    assert names[:2] == ['000010000.png', '000010000.txt'] and len(names) == 120
    dataset = ImageTextShards(
        str(folder / 'train'),
        cache_dir=str(tmp_path),
        pipeline=[dict(type='evamm.LoadImageFromFile')],
    )
    assert len(dataset) == 120
    assert dataset[7]['img'].shape == (SCENE_SIZE, SCENE_SIZE, 3)
    texts = [dataset[index]['text'] for index in range(120)]
    assert len(set(texts)) > 80 and all(any(word in text for word in WORDS) for text in texts)
    assert all(re.fullmatch('[a-z ,]+', text) for text in texts)
    assert not any('a eight' in text for text in texts)


def test_a_picture_shows_what_its_caption_says():
    """Colours are where the words say; digits are the given ones, upright."""
    rng = np.random.default_rng(0)
    half = SCENE_SIZE // 2
    ink = np.full((28, 28), 255, np.uint8)
    scene = Scene('beside', (8, 2), ('red', 'blue'))
    picture = paint(scene, [ink, ink], rng).astype(int)
    assert describe(scene, 'a {first} left of a {second}') == 'a red eight left of a blue two'
    assert describe(scene, 'a {digit} left of a {second_digit}') == 'an eight left of a two'
    assert picture[half - 3 : half + 3, 6:14, 0].mean() > 190  # red is left
    assert picture[half - 3 : half + 3, half + 6 : half + 14, 2].mean() > 190
    scene = Scene('stacked', (8, 2), ('red', 'blue'))
    picture = paint(scene, [ink, ink], rng).astype(int)
    assert describe(scene, 'a {second} below a {first}') == 'a blue two below a red eight'
    assert picture[6:14, half - 3 : half + 3, 0].mean() > 190
    scene = Scene('one', (3,), ('green',))
    mark = np.zeros((28, 28), np.uint8)
    mark[4:9, 4:24] = 255  # a bar at the top of the digit
    picture = paint(scene, [mark], rng).astype(int)
    rows = np.flatnonzero(picture[..., 1].mean(axis=1) > 80)
    assert 1 <= rows.min() and rows.max() < half - 4
    assert describe(scene, 'a large {digit} in {colour}') == 'a large three in green'


def test_scenes_have_every_digit_and_colour():
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng) for _ in range(2000)]
    layouts = Counter(scene.layout for scene in scenes)
    assert min(layouts.values()) > 350
    for layout in layouts:
        members = [scene for scene in scenes if scene.layout == layout]
        assert {digit for scene in members for digit in scene.digits} == set(range(10))
        assert {colour for scene in members for colour in scene.colours} == set(COLOURS)


def test_sentences_of_the_test_are_not_those_of_training():
    for layout, sentences in TEST_SENTENCES.items():
        assert not set(sentences) & set(TRAIN_SENTENCES[layout])
        assert len(sentences) == captions.CAPTIONS_PER_TEST_SCENE
    for sentence in ZERO_SHOT_SENTENCES:
        plain = sentence.format('{digit}')
        assert plain not in TRAIN_SENTENCES['one']
        # Their words are known, though.
        assert set(plain.split()) <= set(' '.join(TRAIN_SENTENCES['one']).split())


def test_no_digit_of_the_test_is_in_training(monkeypatch, tmp_path):
    images, labels = load_digits()
    train, test = stratified_split(labels, captions.VAL_FRACTION, seed=0)
    used = {'train': set(), 'test': set()}
    part = {'train': 'train'}

    original = captions.paint

    def watching(scene, glyphs, rng):
        for glyph in glyphs:
            used[part['train']].add(glyph.tobytes())
        return original(scene, glyphs, rng)

    monkeypatch.setattr(captions, 'paint', watching)
    written = captions._write_test

    def test_begins(*args):
        part['train'] = 'test'
        written(*args)

    monkeypatch.setattr(captions, '_write_test', test_begins)
    write_captions(tmp_path, shards=2, per_shard=200)
    of_train = {images[number].tobytes() for number in train}
    of_test = {images[number].tobytes() for number in test}
    assert len(used['train']) > 400 and used['train'] <= of_train
    assert len(used['test']) > 900 and used['test'] <= of_test
    assert not of_train & of_test


def test_the_retrieval_set(folder):
    content = json.loads((folder / 'test' / 'captions.json').read_text())
    images = content['images']
    assert len(images) == captions.TEST_SCENES
    texts = [tuple(each['raw'] for each in image['sentences']) for image in images]
    assert {len(each) for each in texts} == {3}
    flat = [text for each in texts for text in each]
    assert len(set(flat)) == len(flat)  # a caption fits one image only
    for image in images[::25]:
        assert Image.open(folder / 'test' / 'images' / image['filename']).mode == 'RGB'


def test_the_zero_shot_folder(folder):
    val = folder / 'zero_shot' / 'val'
    assert [len(list((val / str(digit)).glob('*.png'))) for digit in range(10)] == [100] * 10
