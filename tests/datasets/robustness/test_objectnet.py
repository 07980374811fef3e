import json

import pytest
from PIL import Image

from evamm.datasets import ObjectNet
from evamm.registry import DATASETS

FOLDERS = {
    'alarm_clock': 'Alarm clock',
    'banana': 'Banana',
    'band_aid': 'Band Aid',
    'still_life_paper': 'Still Life Paper',
}
COUNTERPARTS = {
    'Alarm clock': 'digital clock; analog clock',
    'Banana': 'banana',
    'Still Life Paper': 'tench, Tinca tinca',
}
# Line numbers differ from labels in the released files, so they do here.
LINES = ['digital clock', 'tench, Tinca tinca', 'banana', 'analog clock']
LABEL_TO_LINE = {'0': 1, '409': 3, '530': 0, '954': 2}


@pytest.fixture
def objectnet(tmp_path):
    """A copy with the files of objectnet-1.0: images/ and mappings/."""
    for folder in FOLDERS:
        (tmp_path / 'images' / folder).mkdir(parents=True)
        Image.new('RGB', (8, 8), (255, 0, 0)).save(tmp_path / 'images' / folder / 'a.png')
    mappings = tmp_path / 'mappings'
    mappings.mkdir()
    (mappings / 'folder_to_objectnet_label.json').write_text(json.dumps(FOLDERS))
    (mappings / 'objectnet_to_imagenet_1k.json').write_text(json.dumps(COUNTERPARTS))
    (mappings / 'pytorch_to_imagenet_2012_id.json').write_text(json.dumps(LABEL_TO_LINE))
    (mappings / 'imagenet_to_label_2012_v2').write_text('\n'.join(LINES))
    return tmp_path


def test_first_counterpart_counts_and_others_are_left_out(objectnet):
    dataset = ObjectNet(str(objectnet))
    found = {
        info['img_path'].split('/')[-2]: info['gt_label']
        for info in map(dataset.get_data_info, range(len(dataset)))
    }
    assert found == {'alarm_clock': 530, 'banana': 954, 'still_life_paper': 0}


def test_no_restriction_of_classes(objectnet):
    assert 'label_subset' not in ObjectNet(str(objectnet)).metainfo


def test_border_crop_is_an_option_of_the_pipeline(objectnet):
    load, pack = dict(type='LoadImageFromFile'), dict(type='mmpretrain.PackInputs')
    shapes = []
    for steps in ([], [dict(type='evamm.CropBorder', pixels=2)]):
        dataset = DATASETS.build(
            dict(type='evamm.ObjectNet', data_root=str(objectnet), pipeline=[load, *steps, pack])
        )
        shapes.append(tuple(dataset[0]['inputs'].shape))
    assert shapes == [(3, 8, 8), (3, 4, 4)]


def test_images_folder_given_instead_of_the_archive(objectnet):
    with pytest.raises(FileNotFoundError, match='`data_root` must be the unpacked archive'):
        ObjectNet(str(objectnet / 'images'))


@pytest.mark.parametrize(
    'name',
    [
        'folder_to_objectnet_label.json',
        'objectnet_to_imagenet_1k.json',
        'pytorch_to_imagenet_2012_id.json',
        'imagenet_to_label_2012_v2',
    ],
)
def test_missing_mapping_file_is_named(objectnet, name):
    (objectnet / 'mappings' / name).unlink()
    with pytest.raises(FileNotFoundError, match=f'there is no file .*mappings/{name}'):
        ObjectNet(str(objectnet))


def test_inconsistent_mappings(objectnet):
    (objectnet / 'mappings' / 'objectnet_to_imagenet_1k.json').write_text(
        json.dumps({'Banana': 'plantain'})
    )
    with pytest.raises(ValueError, match="maps 'Banana' to 'plantain'"):
        ObjectNet(str(objectnet))


def test_unknown_category_folder(objectnet):
    (objectnet / 'images' / 'holiday_photos').mkdir()
    with pytest.raises(ValueError, match="ObjectNet: .*'holiday_photos'"):
        ObjectNet(str(objectnet))
