from pathlib import Path

import pytest

from evamm.engine.runner.preflight import (
    DatasetNotFoundError,
    WeightsNotFoundError,
    check_datasets,
    check_weights,
)

LOADERS = ('train_dataloader', 'val_dataloader')


def cfg(**dataset):
    return {'train_dataloader': {'dataset': {'type': 'CustomDataset', **dataset}}}


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'root' / 'train').mkdir(parents=True)
    (tmp_path / 'root' / 'ann.json').write_text('{}')


@pytest.mark.parametrize(
    'dataset',
    [
        {'data_root': 'root'},
        {'data_root': 'root', 'ann_file': 'ann.json', 'data_prefix': {'img_path': 'train'}},
        {'data_root': 'root', 'ann_file': '', 'data_prefix': ''},
        {'type': 'mmpretrain.ImageNet', 'data_root': 'root', 'split': 'train'},
        {'type': 'SomethingElse', 'data_root': 'root', 'split': 'validation'},
        {'type': 'MNIST', 'data_root': 'data/mnist'},
        {'data_root': 's3://bucket/imagenet', 'ann_file': 'meta/train.txt'},
        {'data_root': 'in/a/database', 'backend_args': {'backend': 'lmdb'}},
        {'data_root': 'in/a/database', 'pipeline': [{'backend_args': {'backend': 'petrel'}}]},
        {'images': 7},
    ],
)
def test_accepts_what_is_there_or_elsewhere(dataset):
    check_datasets(cfg(**dataset), LOADERS)


@pytest.mark.parametrize(
    ('dataset', 'path', 'key'),
    [
        ({'data_root': 'gone', 'ann_file': 'a.json'}, 'gone', 'data_root'),
        ({'data_root': 'root', 'ann_file': 'a.json'}, 'root/a.json', 'ann_file'),
        ({'ann_file': 'a.json'}, 'a.json', 'ann_file'),
        ({'data_root': 'root', 'data_prefix': 'val'}, 'root/val', 'data_prefix'),
        (
            {'data_root': 'root', 'data_prefix': {'img_path': 'train', 'seg_map_path': 'maps'}},
            'root/maps',
            'data_prefix.seg_map_path',
        ),
        ({'type': 'ImageNet', 'data_root': 'root', 'split': 'val'}, 'root/val', 'data_prefix'),
    ],
)
def test_names_what_is_missing(dataset, path, key):
    with pytest.raises(DatasetNotFoundError) as error:
        check_datasets(cfg(**dataset), LOADERS)
    message = str(error.value)
    assert message.startswith(f'{path} does not exist (looked for {Path.cwd() / path})')
    assert f'train_dataloader.dataset.{key} needs it' in message
    assert f'--cfg-options train_dataloader.dataset.{key}=PATH' in message


def test_looks_into_wrappers_and_names_all_that_need_it():
    missing = {'type': 'CustomDataset', 'data_root': 'gone'}
    wrapped = {'type': 'RepeatDataset', 'dataset': missing}
    joined = {'type': 'ConcatDataset', 'datasets': [{'data_root': 'root'}, wrapped]}
    config = {'train_dataloader': {'dataset': joined}, 'val_dataloader': {'dataset': missing}}
    with pytest.raises(DatasetNotFoundError) as error:
        check_datasets(config, LOADERS)
    assert (
        'train_dataloader.dataset.datasets.1.dataset.data_root and '
        'val_dataloader.dataset.data_root need it'
    ) in str(error.value)
    check_datasets({**config, 'train_dataloader': None, 'val_dataloader': None}, LOADERS)


def test_digits_come_with_their_command():
    with pytest.raises(
        DatasetNotFoundError, match=r'tools/dataset_converters/digits.py data/digit'
    ):
        check_datasets(cfg(data_root='data/digits/imagenet'), LOADERS)


def test_weights():
    Path('here.pth').touch()
    model = {'backbone': {'init_cfg': {'type': 'Pretrained', 'checkpoint': 'here.pth'}}}
    check_weights({'model': model, 'load_from': 'https://host/weights.pth'})
    model['heads'] = [{'init_cfg': [{'type': 'Pretrained', 'checkpoint': 'gone.pth'}]}]
    with pytest.raises(WeightsNotFoundError, match=r'model.heads.0.init_cfg.0.checkpoint: .*gone'):
        check_weights({'model': model})
    with pytest.raises(WeightsNotFoundError, match=r'^load_from: '):
        check_weights({'model': {}, 'load_from': 'gone.pth'})


def test_a_test_needs_no_weights_to_start_from_but_those_of_a_teacher():
    gone = {'init_cfg': {'type': 'Pretrained', 'checkpoint': 'gone.pth'}}
    check_weights({'model': {'backbone': gone}}, start=False)
    with pytest.raises(WeightsNotFoundError, match=r'^model.teacher.init_cfg.checkpoint: '):
        check_weights({'model': {'backbone': gone, 'teacher': gone}}, start=False)
    with pytest.raises(WeightsNotFoundError, match=r'^load_from: '):
        check_weights({'model': {'backbone': gone}, 'load_from': 'gone.pth'}, start=False)


def test_weights_that_another_config_writes(monkeypatch):
    """Named with their command, seen from a clone or from anywhere."""

    def message(path, **options):
        with pytest.raises(WeightsNotFoundError) as error:
            check_weights({'model': {}, 'load_from': path, **options})
        return str(error.value)

    root = Path(__file__).resolve().parents[2]
    name = 'eva02_mim_tiny_digits'
    config, path = f'configs/digits/{name}.py', f'work_dirs/{name}/iter_1200.pth'
    end = f'Train {root / config} first, which writes it: python tools/train.py {root / config}.'
    assert message(path).endswith(f'{path}). {end}')
    assert message(str(Path.cwd() / path)).endswith(end)
    for other in (f'elsewhere/{name}/iter_1200.pth', 'work_dirs/*/iter_1200.pth'):
        assert 'Train' not in message(other)
    assert 'Train' not in message(path, resume=True)
    monkeypatch.setattr(Path, 'is_file', lambda self: False)
    monkeypatch.chdir(root)
    assert message(path).endswith(end.replace(f'{root}/', ''))
