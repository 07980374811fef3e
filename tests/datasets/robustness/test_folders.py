from importlib.resources import files

import numpy as np
import pytest
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from PIL import Image

from evamm.datasets import ImageNetA, ImageNetR, ImageNetSketch, ImageNetV2
from evamm.datasets.robustness.wnids import IMAGENET_A_WNIDS, IMAGENET_R_WNIDS, IMAGENET_WNIDS
from evamm.registry import DATASETS

V2_FOLDERS = [str(label) for label in range(1000)]
LAYOUTS = [
    pytest.param(ImageNetV2, V2_FOLDERS, 'a.jpeg', id='v2'),
    pytest.param(ImageNetA, IMAGENET_A_WNIDS, '0.000116_digital clock _ x_0.865.jpg', id='a'),
    pytest.param(ImageNetR, IMAGENET_R_WNIDS, 'art_0.jpg', id='r'),
    pytest.param(ImageNetSketch, IMAGENET_WNIDS, 'sketch_0.JPEG', id='sketch'),
]


def make_copy(root, folders, name):
    """Class folders with one empty file each; labels come from names, so no image is needed."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / name).touch()
    (root / 'README.txt').touch()
    return root


def test_wnids_agree_with_timm():
    lists = files('timm.data') / '_info'
    for name, wnids in (
        ('imagenet', IMAGENET_WNIDS),
        ('imagenet_a', IMAGENET_A_WNIDS),
        ('imagenet_r', IMAGENET_R_WNIDS),
    ):
        assert (lists / f'{name}_synsets.txt').read_text().split() == list(wnids)


@pytest.mark.parametrize(('cls', 'folders', 'name'), LAYOUTS)
def test_every_folder_gets_its_imagenet_label(tmp_path, cls, folders, name):
    dataset = cls(str(make_copy(tmp_path, folders, name)))
    found = {
        info['img_path'].split('/')[-2]: info['gt_label']
        for info in map(dataset.get_data_info, range(len(dataset)))
    }
    numbers = V2_FOLDERS if cls is ImageNetV2 else IMAGENET_WNIDS
    assert found == {folder: numbers.index(folder) for folder in folders}
    assert dataset.metainfo['classes'] == tuple(IMAGENET_CATEGORIES)


@pytest.mark.parametrize(
    ('cls', 'wnid', 'name'),
    [
        (ImageNetA, 'n01498041', 'stingray'),
        (ImageNetR, 'n12267677', 'acorn'),
        (ImageNetSketch, 'n15075141', 'toilet tissue'),
    ],
)
def test_label_names_the_right_class(tmp_path, cls, wnid, name):
    dataset = cls(str(make_copy(tmp_path, [wnid], 'x.jpg')), partial=True)
    assert dataset.metainfo['classes'][dataset.get_data_info(0)['gt_label']].startswith(name)


@pytest.mark.parametrize('cls', [ImageNetA, ImageNetR])
def test_subsets_tell_which_labels_compete(cls):
    subset = cls.METAINFO['label_subset']
    assert len(subset) == 200
    assert list(subset) == sorted(set(subset))
    assert [IMAGENET_WNIDS[label] for label in subset] == list(cls.WNIDS)
    assert 'label_subset' not in ImageNetSketch.METAINFO


def test_images_go_through_the_pipeline(tmp_path):
    for label, gray in (('3', 10), ('20', 200)):
        (tmp_path / label).mkdir()
        Image.new('RGB', (9, 7), (gray, gray, gray)).save(tmp_path / label / 'a.png')
    dataset = DATASETS.build(
        dict(
            type='evamm.ImageNetV2',
            data_root=str(tmp_path),
            partial=True,
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='mmpretrain.PackInputs'),
            ],
        )
    )
    assert [int(dataset[i]['data_samples'].gt_label) for i in range(2)] == [3, 20]
    np.testing.assert_array_equal(dataset[1]['inputs'], np.full((3, 7, 9), 200))


@pytest.mark.parametrize(('cls', 'folders', 'name'), LAYOUTS)
def test_missing_class_is_an_error_unless_partial(tmp_path, cls, folders, name):
    root = make_copy(tmp_path, [folder for folder in folders if folder != folders[7]], name)
    with pytest.raises(FileNotFoundError, match=f'1 class folders .*{folders[7]!r}.*partial=True'):
        cls(str(root))
    assert len(cls(str(root), partial=True)) == len(folders) - 1
    (root / folders[7]).mkdir()
    with pytest.raises(FileNotFoundError, match='hold no image'):
        cls(str(root))


@pytest.mark.parametrize(('cls', 'folders', 'name'), LAYOUTS)
def test_one_level_too_high_names_the_right_folder(tmp_path, cls, folders, name):
    inner = make_copy(tmp_path / 'unpacked', folders[:3], name)
    with pytest.raises(ValueError, match=f'one level deeper. Set `data_root` to {inner}'):
        cls(str(tmp_path), partial=True)


def test_folder_of_another_set_is_refused(tmp_path):
    v2 = make_copy(tmp_path / 'v2', V2_FOLDERS[:3], 'a.jpeg')
    with pytest.raises(ValueError, match="ImageNet-A: .*such as 'n01498041', but it holds '0' and"):
        ImageNetA(str(v2), partial=True)
    sketch = make_copy(tmp_path / 'sketch', IMAGENET_WNIDS, 'a.jpeg')
    with pytest.raises(ValueError, match="'n01440764' and 799 more unknown names"):
        ImageNetR(str(sketch))


def test_no_folder_and_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='ImageNet-V2: there is no folder .*nowhere'):
        ImageNetV2(str(tmp_path / 'nowhere'))
    with pytest.raises(ValueError, match='holds no folder at all'):
        ImageNetV2(str(tmp_path))
