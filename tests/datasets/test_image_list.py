import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from PIL import Image

from evamm.datasets import ImageList
from evamm.datasets.image_list import ImageListError

FILES = ['b/2.JPEG', 'b/10.png', 'a/x/1.jpg', 'a/9.webp', 'top.bmp']


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(path)
    (tmp_path / 'images' / 'b' / 'labels.txt').write_text('no image')
    return tmp_path


def paths(dataset):
    return [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]


def test_a_folder_with_all_its_folders(folder):
    dataset = ImageList(data_root=str(folder), data_prefix='images')
    names = ['top.bmp', 'a/9.webp', 'a/x/1.jpg', 'b/10.png', 'b/2.JPEG']
    assert paths(dataset) == [str(folder / 'images' / name) for name in names]
    assert [dataset.get_data_info(i)['sample_idx'] for i in (0, 4, -1)] == [0, 4, 4]
    with pytest.raises(IndexError):
        dataset.get_data_info(5)


def test_a_list(folder):
    """As `find .` writes it, with labels, with spaces in names."""
    (folder / 'list.txt').write_text('./b/2.JPEG\na/x/1.jpg 17\n\na b/c d.jpg\t3\nä.jpg\n')
    dataset = ImageList('list.txt', data_root=str(folder), data_prefix='images')
    names = ['b/2.JPEG', 'a/x/1.jpg', 'a b/c d.jpg', 'ä.jpg']
    assert paths(dataset) == [str(folder / 'images' / name) for name in names]


def test_some_of_the_images(folder):
    whole = paths(ImageList(data_root=str(folder)))
    assert paths(ImageList(data_root=str(folder), indices=2)) == whole[:2]
    assert paths(ImageList(data_root=str(folder), indices=[4, 1])) == [whole[4], whole[1]]


def test_several_sets_are_one(folder):
    parts = [ImageList(data_root=str(folder), data_prefix=f'images/{name}') for name in 'ab']
    merged = ConcatDataset(parts)
    assert len(merged) == 4 and merged[2]['img_path'] == str(folder / 'images/b/10.png')


def test_what_is_wrong_is_said(folder):
    (folder / 'empty').mkdir()
    with pytest.raises(ImageListError, match='empty holds no images'):
        ImageList(data_root=str(folder), data_prefix='empty')
    (folder / 'list.txt').write_text('a.jpg\nid,caption\n')
    with pytest.raises(ImageListError, match=r"list\.txt, line 2: .*'id,caption'"):
        ImageList('list.txt', data_root=str(folder))
