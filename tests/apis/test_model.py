"""get_model: names, sizes, heads, weights, and what it says when something does not fit."""

import logging
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.logging import MMLogger

from evamm.apis import model_index
from evamm.apis.model import class_names, fresh_parts, get_model
from evamm.apis.transforms import ImageTransform
from evamm.checkpoints import CheckpointError, write_checkpoint


@pytest.fixture
def listed(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(model_index, 'index_root', lambda: index)
    return index


def test_random_model_has_the_official_initialisation(config: Config) -> None:
    model = get_model(config)
    assert not model.training
    assert model(torch.zeros(1, 3, 56, 56)).shape == (1, 10)
    assert 0.015 < model.backbone.pos_embed.std() < 0.025  # not left at zero
    assert 0.7 < model.head.fc.weight.std() < 1.1  # the config's init_cfg, not PyTorch's default
    # The training config's own init_cfg names a file that does not exist: it is not touched.
    assert model._config.model.backbone.init_cfg.checkpoint == '/nowhere/pretrained.pt'


def test_building_is_quiet(config: Config) -> None:
    """mmengine would log three lines for each parameter."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        level = logger.level
        get_model(config)
        assert records == []
        assert logger.level == level
    finally:
        logger.removeHandler(handler)


def test_the_given_config_is_not_changed(config: Config) -> None:
    before = config.pretty_text
    get_model(config, img_size=112, num_classes=3)
    assert config.pretty_text == before


def test_names_aliases_and_pretrained_true(listed: Path, config: Config) -> None:
    source = get_model(config)
    write_checkpoint(source.state_dict(), listed.parent / 'weights.pt')
    metafile = listed / 'configs' / 'metafile.yml'
    with pytest.raises(CheckpointError, match='sha256|hash'):  # the entry's is "abc"
        get_model('eva02_test', pretrained=True)
    metafile.write_text(metafile.read_text().replace(', SHA256: abc', ''))
    model_index.load_entries.cache_clear()
    model = get_model('eva02_test', pretrained=True)
    assert model._metainfo.name == 'eva02-test_3rdparty_in1k'
    images = torch.randn(2, 3, 56, 56)
    assert torch.equal(model(images), source(images))


@pytest.mark.parametrize('averaged, expected', [(True, 2.0), (False, 1.0), (None, 2.0)])
def test_released_weights_are_those_of_the_published_figure(
    listed: Path, config: Config, averaged: bool | None, expected: float
) -> None:
    state = get_model(config).state_dict()
    raw = {name: torch.full_like(value, 1.0) for name, value in state.items()}
    ema = {name: torch.full_like(value, 2.0) for name, value in state.items()}
    weights = listed.parent / 'both.pt'
    write_checkpoint({'model': raw, 'model_ema': ema}, weights)
    metafile = listed / 'configs' / 'metafile.yml'
    content = yaml.safe_load(metafile.read_text())
    entry = next(item for item in content['Models'] if item.get('Results'))
    entry['Weights'] = str(weights)
    entry['Metadata'].pop('SHA256', None)
    if averaged is not None:
        entry['Official'] = {'Averaged Weights': averaged}
    metafile.write_text(yaml.safe_dump(content))
    model_index.load_entries.cache_clear()
    assert get_model(entry['Name'], pretrained=True).head.fc.bias[0] == expected
    assert get_model(config, pretrained=weights).head.fc.bias[0] == expected  # by its file name
    other = 3.0 - expected
    model = get_model(entry['Name'], pretrained=True, prefer_ema=expected == 1.0)
    assert model.head.fc.bias[0] == other


def test_a_checkpoint_without_head_warns(config: Config, tmp_path: Path) -> None:
    state = get_model(config).state_dict()
    trunk = {name: value for name, value in state.items() if name.startswith('backbone.')}
    write_checkpoint({'state_dict': trunk}, tmp_path / 'trunk.pth')
    with pytest.warns(UserWarning, match='trunk.pth does not hold head.fc.weight, head.fc.bias: '):
        get_model(config, pretrained=tmp_path / 'trunk.pth')


def test_another_size_and_class_count(config: Config, tmp_path: Path) -> None:
    source = get_model(config)
    write_checkpoint(source.state_dict(), tmp_path / 'a.pth')
    model = get_model(config, tmp_path / 'a.pth', img_size=84, num_classes=3)
    assert model.backbone.pos_embed.shape == (1, 1 + 6 * 6, 32)
    loaded, stored = model.backbone.blocks[3].mlp.w3, source.backbone.blocks[3].mlp.w3
    assert torch.equal(loaded.weight, stored.weight)
    assert model.head.fc.weight.shape == (3, 32)
    assert 0.6 < model.head.fc.weight.std() < 1.2  # fresh, by the config's init_cfg
    assert model.data_preprocessor.num_classes == 3
    assert ImageTransform(model._config)(torch.zeros(90, 90, 3).byte().numpy()).shape == (3, 84, 84)
    assert class_names(model) is None  # ten names do not fit three classes
    assert class_names(source) == tuple(f'digit {i}' for i in range(10))


def test_without_a_head(config: Config, tmp_path: Path) -> None:
    source = get_model(config)
    write_checkpoint(source.state_dict(), tmp_path / 'a.pth')
    model = get_model(config, tmp_path / 'a.pth', num_classes=0)
    images = torch.randn(1, 3, 56, 56)
    assert torch.equal(model(images)[0], source.extract_feat(images)[0])


def test_backbone_settings_are_merged(config: Config) -> None:
    model = get_model(config, backbone=dict(out_indices=(1, 3), out_type='featmap'), num_classes=0)
    shallow, deep = model(torch.zeros(1, 3, 56, 56))
    assert shallow.shape == deep.shape == (1, 32, 4, 4)
    config.model.backbone.arch = 'eva02-tiny'
    small = get_model(
        config, num_classes=0, backbone=dict(arch=dict(embed_dims=32, depth=2, num_heads=2))
    )
    assert len(small.backbone.blocks) == 2
    with pytest.raises(TypeError, match='no_such_setting'):
        get_model(config, backbone=dict(no_such_setting=1))


def test_meta_device_takes_no_memory(config: Config) -> None:
    model = get_model(config, device='meta')
    assert all(parameter.is_meta for parameter in model.parameters())
    with pytest.raises(ValueError, match="device='meta'"):
        get_model(config, 'a.pth', device='meta')


def test_class_names_of_the_checkpoint_win(config: Config, tmp_path: Path) -> None:
    names = [f'name {i}' for i in range(10)]
    write_checkpoint(
        {
            'state_dict': get_model(config).state_dict(),
            'meta': {'dataset_meta': {'classes': names}},
        },
        tmp_path / 'a.pth',
    )
    assert class_names(get_model(config, tmp_path / 'a.pth')) == tuple(names)


def test_class_names_of_the_data_set(config: Config) -> None:
    dataset = config.test_dataloader.dataset
    config.test_dataloader.dataset = dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(type='ImageNet', data_root='nowhere', split='val', pipeline=dataset.pipeline),
    )
    names = get_model(config, num_classes=1000)._dataset_meta['classes']
    assert names[0].startswith('tench')


@pytest.mark.parametrize(
    ('model', 'error', 'words'),
    [('nowhere/config.py', FileNotFoundError, 'nowhere/config.py'), (3, TypeError, 'found int')],
)
def test_wrong_models_are_explained(model: object, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        get_model(model)


def test_config_without_weights_is_explained(config: Config) -> None:
    with pytest.raises(ValueError, match="names no weights for pretrained=True.*pretrained='/path"):
        get_model(config, pretrained=True)


def test_headless_config_with_classes_is_explained(listed: Path) -> None:
    with pytest.raises(ValueError, match='num_classes=3 needs a head'):
        get_model('eva02-test-headless', num_classes=3)


@pytest.mark.parametrize('stored', [None, ['x'], {'classes': [1, 2, 3]}, {'classes': 'abc'}])
def test_class_names_that_are_none(stored: object, config: Config) -> None:
    from evamm.apis.model import _dataset_meta

    assert _dataset_meta({'dataset_meta': stored}, config)['classes'][0] == 'digit 0'


def test_report_of_loading_is_kept(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = get_model(config)
    assert model.load_report is None
    write_checkpoint(model.state_dict(), tmp_path / 'a.pth')
    with caplog.at_level('INFO', logger='evamm'):
        larger = get_model(config, tmp_path / 'a.pth', img_size=84)
    assert [name for name, *_ in larger.load_report.resized] == ['backbone.pos_embed']
    assert 'resized   backbone.pos_embed  1x17x32 -> 1x37x32' in caplog.text


def test_fresh_parts_of_another_number_of_classes(config: Config, tmp_path: Path) -> None:
    write_checkpoint(get_model(config, num_classes=7).state_dict(), tmp_path / 'seven.pth')
    with pytest.warns(UserWarning, match='it has 7 outputs, the model 3') as caught:
        model = get_model(config, tmp_path / 'seven.pth', num_classes=3)
    assert len(caught) == 1
    assert fresh_parts(model.load_report) == ['head.fc.weight', 'head.fc.bias']


def test_configs_of_the_package_are_found_by_their_name(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = get_model('evamm::eva02/eva02_tiny_p14_headless.py', device='meta')
    assert model.backbone.embed_dims == 192
    with pytest.raises(FileNotFoundError, match='configs/eva02/eva02_tiniest.py'):
        get_model('evamm::eva02/eva02_tiniest.py')
