import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, DefaultSampler
from torch.utils.data import DataLoader

from evamm.datasets.samplers import DamagedDataError, TrainingData
from evamm.engine.runner.explain import own_words


def load(info):
    image = cv2.imread(info['img_path'])
    if image is None:
        raise OSError(f'cannot load {info["img_path"]}')
    return {'image': torch.from_numpy(image), 'noise': torch.rand(()), 'path': info['img_path']}


class Folder(BaseDataset):
    """Images of one value each, by a pipeline that may have a bug."""

    def __init__(self, folder, transform=load):
        self.folder, self.transform = folder, transform
        super().__init__(serialize_data=False, pipeline=[transform])

    def load_data_list(self):
        return [{'img_path': str(path)} for path in sorted(self.folder.glob('*.png'))]


@pytest.fixture
def folder(tmp_path):
    for value in range(20):
        cv2.imwrite(str(tmp_path / f'{value:02}.png'), np.full((3, 3, 3), value, np.uint8))
    return tmp_path


def batches(folder, workers=0, max_damaged=0.2, transform=load, epoch=0, skip=0):
    dataset = Folder(folder, transform)
    loader = DataLoader(
        dataset, batch_size=4, sampler=DefaultSampler(dataset, seed=1), num_workers=workers
    )
    data = TrainingData(loader, seed=1, max_damaged=max_damaged)
    data.set_epoch(epoch)
    result = []
    for batch in data.batches(epoch, skip):
        data.count_damage()
        result.append(batch)
    return data, result


def damage(folder, *values):
    for value in values:
        path = folder / f'{value:02}.png'
        path.write_bytes(path.read_bytes()[:40] if value % 2 else b'')


def test_a_damaged_image_is_replaced_in_the_same_way_everywhere(folder):
    _, clean = batches(folder)
    damage(folder, 3, 8)
    data, seen = batches(folder)
    assert {path[-6:-4] for path in data.damage.paths.values()} == {'03', '08'}
    assert data.damage.replaced == 2 and '2 of 20' in data.damage.summary()
    paths = [path[-6:-4] for batch in seen for path in batch['path']]
    assert len(paths) == 20 and not {'03', '08'} & set(paths)
    for one, two in zip(clean, seen, strict=True):  # the others are what they were
        for i, path in enumerate(one['path']):
            if path[-6:-4] not in ('03', '08'):
                assert one['noise'][i] == two['noise'][i] and one['path'][i] == two['path'][i]
    for again in (batches(folder, workers=2)[1], [*seen[:3], *batches(folder, skip=3)[1]]):
        for one, two in zip(seen, again, strict=True):
            assert one['path'] == two['path'] and torch.equal(one['noise'], two['noise'])


def test_other_epochs_take_other_replacements(folder):
    damage(folder, 8)
    replaced = set()
    for epoch in range(6):
        paths = [path for batch in batches(folder, epoch=epoch)[1] for path in batch['path']]
        replaced |= {path for path in paths if paths.count(path) == 2}
    assert len(replaced) > 2


@pytest.mark.parametrize('workers', [0, 1])
def test_too_many_damaged_images_end_the_run(folder, workers):
    damage(folder, 1, 2, 3, 4)
    with pytest.raises(DamagedDataError, match='max_damaged=0.1 allows'):
        for _ in range(20):  # reports of a worker may arrive late
            batches(folder, workers=workers, max_damaged=0.1)


def test_a_bug_in_the_pipeline_is_not_hidden(folder):
    def broken(info):
        raise OSError('from the pipeline, not from the image')

    with pytest.raises(OSError, match='from the pipeline'):
        batches(folder, transform=broken)


def test_a_missing_image_is_an_error(folder):
    dataset = Folder(folder)
    (folder / '05.png').unlink()
    loader = DataLoader(dataset, batch_size=4, sampler=DefaultSampler(dataset, seed=1))
    with pytest.raises(OSError, match='05.png'):
        list(TrainingData(loader, seed=1).batches(0, 0))


@pytest.mark.parametrize('workers', [0, 1])
def test_damage_everywhere_ends_the_run_with_one_sentence(folder, workers):
    damage(folder, *range(20))
    with pytest.raises(DamagedDataError) as raised:
        batches(folder, workers=workers, max_damaged=1.0)
    words = own_words(raised.value)
    assert words.startswith('10 samples') and words.endswith('Repair the data.')
    assert '.png (' in words and '\n' not in words
