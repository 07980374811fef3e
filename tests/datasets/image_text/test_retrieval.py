"""Images with their captions, from the files of Karpathy and of COCO."""

import json

import pytest
from mmengine.registry import DefaultScope

from evamm.engine.errors import ConfigError
from evamm.registry import DATASETS

from .common import number_of, picture


def karpathy(number, split, texts, **kwargs):
    sentences = [{'raw': f' {text} ', 'sentid': 0} for text in texts]
    return dict(filename=f'{number}.png', imgid=number, split=split, sentences=sentences, **kwargs)


FLICKR = {
    'dataset': 'flickr30k',
    'images': [
        karpathy(0, 'train', ['a']),
        karpathy(1, 'test', ['b', 'c', 'd']),
        karpathy(2, 'test', ['e']),
    ],
}
COCO_SPLIT = {
    'images': [
        karpathy(0, 'restval', ['a'], filepath='train2014', cocoid=500),
        karpathy(1, 'test', ['b', 'c', 'd'], filepath='val2014', cocoid=501),
    ]
}
COCO = {
    'images': [{'id': 7, 'file_name': '2.png'}, {'id': 5, 'file_name': '1.png'}, {'id': 1}],
    'annotations': [
        {'image_id': 5, 'caption': 'b', 'id': 1},
        {'image_id': 7, 'caption': 'e\n', 'id': 2},
        {'image_id': 5, 'caption': 'c', 'id': 3},
    ],
}


def build(tmp_path, content, **kwargs):
    (tmp_path / 'a.json').write_text(json.dumps(content))
    cfg = dict(type='evamm.CaptionRetrieval', data_root=str(tmp_path), ann_file='a.json')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build({**cfg, **kwargs})


def listed(dataset):
    return [
        (info['img_path'], info['text'], info['image_id'])
        for info in map(dataset.get_data_info, range(len(dataset)))
    ]


def test_splits_of_flickr30k(tmp_path):
    dataset = build(tmp_path, FLICKR, split='test', data_prefix='images')
    folder = f'{tmp_path}/images'
    assert listed(dataset) == [
        (f'{folder}/1.png', ['b', 'c', 'd'], 1),
        (f'{folder}/2.png', ['e'], 2),
    ]
    two = build(tmp_path, FLICKR, split='train+test', max_texts=2)
    assert [texts for _, texts, _ in listed(two)] == [['a'], ['b', 'c'], ['e']]


def test_splits_of_coco_know_the_folder(tmp_path):
    dataset = build(tmp_path, COCO_SPLIT, split='test')
    assert listed(dataset) == [(f'{tmp_path}/val2014/1.png', ['b', 'c', 'd'], 501)]


def test_annotations_of_coco(tmp_path):
    dataset = build(tmp_path, COCO, data_prefix='val2017')
    assert listed(dataset) == [
        (f'{tmp_path}/val2017/2.png', ['e'], 7),
        (f'{tmp_path}/val2017/1.png', ['b', 'c'], 5),
    ]


def test_mistakes_are_explained(tmp_path):
    with pytest.raises(ConfigError, match='set `split`'):
        build(tmp_path, FLICKR)
    with pytest.raises(ConfigError, match=r"split='val'.*\['test', 'train'\]"):
        build(tmp_path, FLICKR, split='val')
    with pytest.raises(ConfigError, match='neither a file of Karpathy'):
        build(tmp_path, {'images': [{'name': 'x'}]}, split='test')
    with pytest.raises(ConfigError, match='neither a file of Karpathy'):
        build(tmp_path, [1, 2], split='test')


def test_a_sample_is_packed_with_all_its_captions(tmp_path):
    (tmp_path / '1.png').write_bytes(picture(1))
    pipeline = [
        dict(type='evamm.LoadImageFromFile'),
        dict(type='evamm.TokenizeText'),
        dict(type='evamm.PackPairInputs'),
    ]
    packed = build(tmp_path, FLICKR, split='test', pipeline=pipeline)[0]
    sample = packed['data_samples']
    assert packed['inputs'].shape == (3, 8, 8) and sample.image_id == 1
    assert sample.text == ['b', 'c', 'd'] and sample.text_tokens.shape == (3, 77)
    assert number_of({'img': packed['inputs'].permute(1, 2, 0).numpy()}) == 1
