"""Data sets in COCO's format: what they give, and what they say about bad files."""

import json
import os

import numpy as np
import pytest
from jitter_cases import annotations, picture
from mmengine.dataset import ConcatDataset
from PIL import Image

from evamm.datasets import RepeatFactorSampler
from evamm.datasets.checks import DataError
from evamm.datasets.detection import (
    CocoDataset,
    LoadDetAnnotations,
    LVISV1Dataset,
    Objects365V2Dataset,
    bad_data,
)
from evamm.datasets.detection import coco as coco_module
from evamm.datasets.detection.loading import decode_mask
from evamm.registry import DATASETS

SIZE = (40, 60)
CLASSES = ('round', 'double', 'crossed')


@pytest.fixture
def coco(tmp_path):
    """A sound file with four images, the last without annotations; ids have gaps."""
    rows, images = [], []
    for number in range(4):
        name = f'{number}.png'
        Image.fromarray(picture(*SIZE)).save(tmp_path / name)
        entry = {'id': 10 * number + 3, 'file_name': name, 'height': SIZE[0], 'width': SIZE[1]}
        images.append(entry)
        for row in annotations(*SIZE, number) if number < 3 else ():
            row['category_id'] = 5 + 2 * row['category_id']
            rows.append({'id': len(rows) + 1, 'image_id': entry['id'], 'area': 9.0, **row})
    categories = [{'id': 5 + 2 * number, 'name': name} for number, name in enumerate(CLASSES)]
    return {'images': images, 'annotations': rows[::-1], 'categories': categories}


@pytest.fixture
def build(tmp_path):
    """A data set of such a file."""

    def build(content, kind=CocoDataset, masks=True, **options):
        (tmp_path / 'a.json').write_text(json.dumps(content))
        if kind is CocoDataset:
            options.setdefault('metainfo', {'classes': CLASSES})
        return kind(
            ann_file='a.json',
            data_root=str(tmp_path),
            data_prefix={'img': ''},
            pipeline=[LoadDetAnnotations(with_mask=masks)],
            **options,
        )

    return build


def test_a_sound_file_gives_every_instance(coco, build, tmp_path):
    dataset = build(coco, bad_data='stop')
    assert len(dataset) == 4
    info = dataset.get_data_info(1)
    assert info['img_path'] == str(tmp_path / '1.png')
    assert (info['img_id'], info['height'], info['width']) == (13, *SIZE)
    expected = [row for row in coco['annotations'] if row['image_id'] == 13]
    assert len(info['instances']) == len(expected) == 7
    for instance, row in zip(info['instances'], expected):
        x, y, width, height = row['bbox']
        assert instance['bbox'] == [x, y, x + width, y + height]
        assert instance['bbox_label'] == (row['category_id'] - 5) // 2
        assert instance['ignore_flag'] == row['iscrowd']
        assert instance['mask'] == row['segmentation']
    assert dataset.get_data_info(3)['instances'] == []


def test_masks_are_kept_only_where_they_are_loaded(coco, build):
    dataset = build(coco, masks=False)
    assert all('mask' not in instance for instance in dataset.get_data_info(0)['instances'])


def test_labels_follow_the_classes_and_other_categories_are_left_out(coco, build):
    """mmdet's labels follow the order of the file instead."""
    dataset = build(coco, metainfo={'classes': ('crossed', 'round')}, bad_data='stop')
    found = {
        (instance['bbox_label'], tuple(instance['bbox'][:2]))
        for index in range(len(dataset))
        for instance in dataset.get_data_info(index)['instances']
    }
    expected = {
        ({9: 0, 5: 1}[row['category_id']], tuple(row['bbox'][:2]))
        for row in coco['annotations']
        if row['category_id'] != 7
    }
    assert found == expected
    assert dataset.metainfo['category_ids'] == [9, 5]


def test_training_leaves_out_images_with_nothing_but_crowds(coco, build, monkeypatch):
    said = []
    monkeypatch.setattr(coco_module, 'print_log', lambda text, **_: said.append(text))
    for row in coco['annotations']:
        if row['image_id'] == 13:
            row['iscrowd'] = 1
    kept = build(coco, filter_cfg={'filter_empty_gt': True})
    assert [kept.get_data_info(index)['img_id'] for index in range(len(kept))] == [3, 23]
    assert said.pop().endswith(
        'a.json: 2 of 4 images show nothing to learn, or crowds only; they are left out.'
    )
    assert len(build(coco)) == 4 and said.pop().endswith('they are background.')
    assert len(build(coco, filter_cfg={'filter_empty_gt': True}, test_mode=True)) == 4
    assert not said
    with pytest.raises(DataError, match='none of its 4 usable images is left'):
        build(coco, filter_cfg={'min_size': 50})


# What is wrong, what is done to a sound file, and how often it counts.
PROBLEMS = {
    'boxes without area': lambda coco: coco['annotations'][0].update(bbox=[3, 4, 0, 5]),
    'boxes of negative size': lambda coco: coco['annotations'][0].update(bbox=[3, 4, -2, 5]),
    'boxes outside of their image': lambda coco: coco['annotations'][0].update(bbox=[90, 4, 2, 5]),
    'boxes that are not four numbers': lambda coco: coco['annotations'][0].update(bbox=[1, 2, 3]),
    'annotations without a box': lambda coco: coco['annotations'][0].pop('bbox'),
    'annotations without a mask': lambda coco: coco['annotations'][0].pop('segmentation'),
    'masks without a polygon of three points': lambda coco: coco['annotations'][0].update(
        segmentation=[[1, 2, 3, 4]]
    ),
    'masks of another size than their image': lambda coco: coco['annotations'][0].update(
        segmentation={'size': [40, 50], 'counts': [2000]}
    ),
    'masks whose runs do not cover their image': lambda coco: coco['annotations'][0].update(
        segmentation={'size': [40, 60], 'counts': [5, 6, 7]}
    ),
    'masks that are neither polygons nor runs': lambda coco: coco['annotations'][0].update(
        segmentation='mask.png'
    ),
    'masks without a polygon of three points (': lambda coco: coco['annotations'][0].update(
        segmentation=[[1, 2, 3, 4, 5, float('nan')], [1, 2, 3, 4, 5, None], [[1, 2]] * 6]
    ),
    'masks whose runs do not cover their image (': lambda coco: coco['annotations'][0].update(
        segmentation={'size': [40, 60], 'counts': [-1, 2401]}
    ),
    'masks that are neither polygons nor runs (': lambda coco: coco['annotations'][0].update(
        segmentation={'size': [40, 60], 'counts': None}
    ),
    'annotations whose iscrowd is neither 0 nor 1': lambda coco: coco['annotations'][0].update(
        iscrowd='0'
    ),
    'annotations of a category that is not listed': lambda coco: coco['annotations'][0].update(
        category_id=6
    ),
    'annotations of an image that is not listed': lambda coco: coco['annotations'][0].update(
        image_id=4
    ),
}


@pytest.mark.parametrize('problem', PROBLEMS)
def test_a_bad_annotation_is_named_or_left_out(coco, build, caplog, problem):
    bad = coco['annotations'][0]['id']
    PROBLEMS[problem](coco)
    with pytest.raises(DataError) as error:
        build(coco, bad_data='stop')
    message = str(error.value)
    assert f'a.json: 1 of 21 annotations cannot be used: 1 {problem}' in message
    assert f'annotation {bad} of image' in message and 'bad_data="skip"' in message
    dataset = build(coco)
    total = sum(len(dataset.get_data_info(index)['instances']) for index in range(4))
    assert total == 20


def test_annotations_with_an_ignore_flag_are_left_out_in_silence(coco, build):
    coco['annotations'][0]['ignore'] = 1
    dataset = build(coco, bad_data='stop')
    assert sum(len(dataset.get_data_info(index)['instances']) for index in range(4)) == 20


def test_repeated_ids_are_noted_and_both_annotations_stay(coco, build, monkeypatch):
    said = []
    monkeypatch.setattr(bad_data, 'print_log', lambda text, **_: said.append(text))

    def count(**options):
        dataset = build(coco, **options)
        return sum(len(dataset.get_data_info(index)['instances']) for index in range(4))

    first, second, third = coco['annotations'][:3]
    second['id'] = first['id']
    noted = f'1 annotations without an id of their own (annotation {first["id"]} of image 23).'
    assert count() == 21
    (text,) = said
    assert text.endswith(f'a.json: {noted} They are kept.')
    with pytest.raises(DataError) as error:
        build(coco, bad_data='stop')
    assert f'{noted} Correct the file, or' in str(error.value)
    assert str(error.value).endswith('to keep them.')
    third['bbox'] = [3, 4, 0, 5]
    said.clear()
    assert count() == 20
    assert [text[text.rindex('They') :] for text in said] == [
        'They are left out.',
        'They are kept.',
    ]
    assert 'a.json: 1 of 21 annotations cannot be used: 1 boxes without area' in said[0]
    third.pop('id')
    with pytest.raises(DataError, match=r'2 annotations without an id.*more than max_bad=0.01 of'):
        build(coco)


def test_bad_images_are_named_or_left_out(coco, build, tmp_path):
    os.remove(tmp_path / '2.png')
    with pytest.raises(DataError, match=r'1 of 4 images cannot be used: 1 missing files \(.*2.png'):
        build(coco, bad_data='stop')
    # Its annotations go with it and are no second problem.
    assert len(build(coco)) == 3
    assert len(build(coco, check_files=False, bad_data='stop')) == 4
    coco['images'].append(dict(coco['images'][0]))
    with pytest.raises(DataError, match='1 images whose id is taken'):
        build(coco, bad_data='stop', check_files=False)
    coco['images'][4] = {'id': 99, 'file_name': '1.png', 'width': 60}
    with pytest.raises(DataError, match='1 images without width and height'):
        build(coco, bad_data='stop', check_files=False)


def test_whole_sizes_written_with_a_point_are_sizes(coco, build):
    coco['images'][1].update(width=60.0, height=40.0)
    info = build(coco, bad_data='stop').get_data_info(1)
    assert (info['height'], info['width']) == SIZE
    assert type(info['height']) is type(info['width']) is int
    coco['images'][1]['width'] = 60.5
    with pytest.raises(DataError, match='1 images without width and height'):
        build(coco, bad_data='stop')


def test_too_much_bad_data_stops_in_any_case(coco, build):
    for row in coco['annotations'][:3]:
        row['bbox'] = [0, 0, 0, 0]
    with pytest.raises(DataError, match=r'3 boxes without area.*more than max_bad=0.01') as error:
        build(coco)
    assert str(error.value).count('annotation ') == 3
    assert len(build(coco, max_bad=0.2)) == 4


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (lambda coco: coco.pop('images'), 'has no list images'),
        (lambda coco: coco['categories'].append(None), 'every category needs a "name" and an "id"'),
        (lambda coco: coco.update(categories=None), 'has no list categories'),
        (
            lambda coco: coco['categories'].append({'id': 5, 'name': 'x'}),
            'every category needs a "name" and an "id" of its own',
        ),
        (
            lambda coco: coco['categories'].append({'id': 50, 'name': 'round'}),
            r"'round' \(2 times\); its categories are 'round', 'double', 'crossed'",
        ),
        (
            lambda coco: coco['categories'].pop(0),
            r"'round' \(0 times\).*Set metainfo=dict\(classes=",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(coco, build, change, sentence):
    change(coco)
    with pytest.raises(DataError, match=sentence):
        build(coco)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'metainfo': {'classes': 'round'}}, r"is the text 'round'.*classes=\('round',\)"),
        ({'metainfo': {'classes': ('round', 'round')}}, "has 'round' more than once"),
        ({'max_bad': 'ten'}, "`max_bad` must be a share from 0 to 1, found 'ten'"),
    ],
)
def test_settings_that_cannot_be_used_are_one_sentence(coco, build, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(coco, **options)


def test_an_image_with_an_address_but_no_file_name_is_left_out(coco, build):
    coco['images'][3].pop('file_name')
    coco['images'][3]['coco_url'] = 'http://images/train/3.png'
    with pytest.raises(DataError, match='1 images without a file name'):
        build(coco, bad_data='stop')
    assert len(build(coco)) == 3


def test_damaged_runs_are_named():
    with pytest.raises(DataError, match="the runs 'hello world' are no mask of 64 x 64 pixels"):
        decode_mask({'size': [64, 64], 'counts': 'hello world'}, 64, 64)


def test_other_files_are_recognised(tmp_path, build):
    with pytest.raises(DataError, match="holds 'None' instead of"):
        build(None)
    with pytest.raises(ValueError, match=r"must be dict\(img='FOLDER'\), found 'train'"):
        CocoDataset(data_prefix='train')
    with pytest.raises(DataError, match='has no `ann_file`'):
        CocoDataset()
    with pytest.raises(DataError, match='is a list.*file of predictions'):
        build([{'image_id': 1}])
    (tmp_path / 'b.json').write_text('{"images": [')
    with pytest.raises(DataError, match='b.json is not JSON'):
        CocoDataset(ann_file=str(tmp_path / 'b.json'))
    words = r'the annotation file nowhere/c.json does not exist \(looked for /.*nowhere/c.json\)'
    with pytest.raises(DataError, match=f'{words}; correct `ann_file` of the data set'):
        CocoDataset(ann_file='c.json', data_root='nowhere')
    with pytest.raises(ValueError, match='must be one of'):
        CocoDataset(bad_data='ignore')


def test_images_of_another_size_or_damaged_ones_can_be_replaced(coco, build, tmp_path):
    dataset = build(coco)
    assert dataset.find_damage(1) is None
    Image.fromarray(picture(30, 50)).save(tmp_path / '1.png')
    assert dataset.find_damage(1) == (
        str(tmp_path / '1.png'),
        'it is 50 x 30 pixels, its annotations are for 60 x 40',
    )
    (tmp_path / '2.png').write_bytes(b'no image')
    assert dataset.find_damage(2)[0] == str(tmp_path / '2.png')
    strict = build(coco, bad_data='stop')
    assert strict.find_damage(1) is None is strict.find_damage(2)


def test_lvis_reads_folders_lists_and_frequencies(coco, build, tmp_path, monkeypatch):
    (tmp_path / 'val2017').mkdir()
    monkeypatch.setattr(LVISV1Dataset, 'METAINFO', {'classes': CLASSES})
    for image in coco['images']:
        os.rename(tmp_path / image['file_name'], tmp_path / 'val2017' / image['file_name'])
        image['coco_url'] = f'http://images.cocodataset.org/val2017/{image.pop("file_name")}'
        image['neg_category_ids'], image['not_exhaustive_category_ids'] = [5], [7]
    # Ids decide, whatever the names are and however the file is sorted.
    for number, category in enumerate(coco['categories']):
        category.update(name=f'x{number}', frequency='rcf'[number], image_count=number + 4)
    coco['categories'].reverse()
    dataset = build(coco, LVISV1Dataset, bad_data='stop')
    info = dataset.get_data_info(0)
    assert info['img_path'] == str(tmp_path / 'val2017' / '0.png')
    assert (info['neg_category_ids'], info['not_exhaustive_category_ids']) == ([5], [7])
    assert dataset.metainfo['frequency'] == ['r', 'c', 'f']
    assert dataset.metainfo['image_count'] == [4, 5, 6]
    assert dataset.metainfo['category_ids'] == [5, 7, 9]
    coco['categories'].pop()
    with pytest.raises(DataError, match='2 categories, but the data set has 3 classes'):
        build(coco, LVISV1Dataset)


def test_objects365_knows_its_folders_and_its_missing_images(coco, build, tmp_path, monkeypatch):
    monkeypatch.setattr(Objects365V2Dataset, 'METAINFO', {'classes': CLASSES})
    (tmp_path / 'patch6').mkdir()
    for image in coco['images']:
        name = image['file_name']
        os.rename(tmp_path / name, tmp_path / 'patch6' / name)
        image['file_name'] = f'images/v1/patch6/{name}'
    coco['images'][2]['file_name'] = 'images/v1/patch6/objects365_v1_00320532.jpg'
    dataset = build(coco, Objects365V2Dataset, bad_data='stop')
    paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    assert paths == [str(tmp_path / 'patch6' / f'{number}.png') for number in (0, 1, 3)]


def test_the_classes_of_the_three_data_sets():
    for kind, count, first in (
        (CocoDataset, 80, 'person'),
        (LVISV1Dataset, 1203, 'aerosol_can'),
        (Objects365V2Dataset, 365, 'person'),
    ):
        assert DATASETS.get(f'evamm.{kind.__name__}') is kind
        assert len(kind.METAINFO['classes']) == count
        assert kind.METAINFO['classes'][0].lower() == first


def test_the_sampler_learns_which_classes_an_image_has(coco, build):
    """From a data set that keeps bytes, one that keeps entries, and from several at once."""
    crowd = next(row for row in coco['annotations'] if row['iscrowd'])
    for row in coco['annotations']:  # only the crowd of this image is of its category
        if row['image_id'] == crowd['image_id'] and row is not crowd:
            row['category_id'] = 7
    expected = []
    for image in coco['images']:
        rows = [row for row in coco['annotations'] if row['image_id'] == image['id']]
        expected.append(
            sorted({(row['category_id'] - 5) // 2 for row in rows if not row['iscrowd']})
        )
    for serialize in (True, False):
        labels, starts = build(coco, serialize_data=serialize).labels_of_images()
        found = [labels[a:b].tolist() for a, b in zip(starts, starts[1:])]
        assert found == expected and starts[-1] == len(labels)
    dataset = build(coco)
    single = RepeatFactorSampler(dataset, threshold=2.0, seed=1).factors
    double = RepeatFactorSampler(ConcatDataset([dataset, dataset]), threshold=2.0, seed=1).factors
    assert single.max() > 1
    np.testing.assert_array_equal(double, np.concatenate([single, single]))
