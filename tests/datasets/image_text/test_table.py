"""Tables of pairs: what they may look like, and what is wrong with them."""

import json

import pytest

from evamm.datasets import ShardSampler
from evamm.datasets.image_text import table as table_module
from evamm.engine.errors import ConfigError
from evamm.registry import DATASETS

from .common import number_of, picture


def build(tmp_path, name, content, **kwargs):
    (tmp_path / name).write_text(content, encoding='utf-8')
    cfg = dict(type='evamm.ImageTextTable', data_root=str(tmp_path), ann_file=name)
    return DATASETS.build({**cfg, **kwargs})


@pytest.fixture
def images(tmp_path):
    (tmp_path / 'images').mkdir()
    for number in range(3):
        (tmp_path / 'images' / f'{number}.png').write_bytes(picture(number))
    return tmp_path


TSV = 'filepath\ttitle\n0.png\ta cat\n1.png\ta "big", bad dog\n2.png\tein Häuschen\n'
CSV = 'id,img,words\n1,0.png,a cat\n2,1.png,"a ""big"", bad dog"\n3,2.png,ein Häuschen\n'
JSONL = '\n'.join(
    json.dumps({'image': {'x': 1}, 'img': f'{number}.png', 'words': text})
    for number, text in enumerate(['a cat', 'a "big", bad dog', 'ein Häuschen'])
)


@pytest.mark.parametrize(
    'name, content, kwargs',
    [
        ('a.tsv', TSV, {}),
        ('a.csv', CSV, dict(image_key='img', text_key='words')),
        ('a.txt', TSV.replace('\t', '|'), dict(separator='|')),
        ('a.jsonl', JSONL, dict(image_key='img', text_key='words')),
    ],
)
def test_every_kind_of_table(images, name, content, kwargs):
    pipeline = [{'type': 'evamm.LoadImageFromFile'}]
    table = build(images, name, content, data_prefix='images', pipeline=pipeline, **kwargs)
    samples = [table[index] for index in range(3)]
    assert [number_of(sample) for sample in samples] == [0, 1, 2]
    assert [sample['text'] for sample in samples] == ['a cat', 'a "big", bad dog', 'ein Häuschen']
    assert sorted(ShardSampler(table, seed=0)) == [0, 1, 2]


def test_lists_of_texts_pass(tmp_path):
    rows = '{"filepath": "a.jpg", "title": [" one ", "two"]}\n\n{"filepath": "b", "title": "x"}'
    table = build(tmp_path, 'a.jsonl', rows)
    assert [table[index]['text'] for index in range(2)] == [['one', 'two'], 'x']


BAD = """filepath,title
a.jpg,a cat
b.jpg,
"c.jpg","over
two lines"
,no image
d.jpg,too,many
e.jpg
"""


def test_bad_rows_are_left_out_and_named(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(table_module, 'print_log', lambda message, *args: messages.append(message))
    table = build(tmp_path, 'a.csv', BAD, max_bad=0.7)
    assert [table[i]['img_path'].rpartition('/')[2] for i in range(2)] == ['a.jpg', 'c.jpg']
    assert table[1]['text'] == 'over\ntwo lines'
    for line, problem in ((3, 'no text'), (6, 'no image'), (7, 'too many'), (8, 'no text')):
        assert any(f'a.csv, line {line}: ' in t and problem in t for t in messages)


def test_too_many_bad_rows_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r'4 of 6 rows.*a.csv, line 3: no text'):
        build(tmp_path, 'a.csv', BAD)
    with pytest.raises(ConfigError, match=r'line 2: no JSON'):
        build(tmp_path, 'a.jsonl', '{"filepath": "a", "title": "b"}\n{"filepath"\n')


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no column 'title', only 'filepath', 'words'.*text_key"):
        build(tmp_path, 'a.csv', 'filepath,words\na,b\n')
    with pytest.raises(ConfigError, match='separator'):
        build(tmp_path, 'a.txt', 'filepath,title\na,b\n')
