"""Our models under mmpretrain's own functions."""

import subprocess
import sys
from pathlib import Path

import mmengine.runner
import mmpretrain
import pytest
import torch
from mmengine.config import Config
from mmpretrain.apis.model import ModelHub

import evamm
from evamm.apis.hub import register_model_index
from evamm.apis.model import get_model
from evamm.checkpoints import CheckpointError, from_evamm, to_evamm, write_checkpoint


@pytest.fixture
def hub(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """mmpretrain's hub with the test index in it, put back afterwards."""
    monkeypatch.setattr(ModelHub, '_models_dict', dict(ModelHub._models_dict))
    monkeypatch.setattr(ModelHub, 'get', ModelHub.get)
    late = '_register_mmpretrain_models'
    monkeypatch.setattr(ModelHub, late, getattr(ModelHub, late))
    register_model_index(index)
    return index


def test_released_names_are_in_mmpretrain_after_import() -> None:
    names = mmpretrain.list_models('eva02-')
    assert set(evamm.list_models('eva02-')) == set(names) != set()
    entry = ModelHub.get('eva02_Ti_pt_in21k_ft_in1k_p14')  # the official file's name
    assert entry.name == 'eva02-tiny-p14_in21k-pre_3rdparty_in1k'
    assert isinstance(entry.config, Config)
    assert entry.config.model.backbone.type == 'evamm.EVAViT'


def test_registering_again_changes_nothing(hub: Path) -> None:
    before = dict(ModelHub._models_dict)
    register_model_index(hub)
    register_model_index(hub)
    assert ModelHub._models_dict == before
    assert ModelHub.get('eva02_test').name == 'eva02-test_3rdparty_in1k'


def test_foreign_entry_of_our_name_is_an_error(hub: Path, tmp_path: Path) -> None:
    other = tmp_path / 'other'
    hub.rename(other)
    with pytest.raises(ValueError, match='already has a model named eva02-test'):
        register_model_index(other)


@pytest.mark.parametrize('first', ['evamm', 'mmpretrain'])
def test_a_name_of_both_stays_mmpretrains_own(first: str) -> None:
    """In either order of registration, and nothing else of either is lost."""
    name = 'eva-mae-style_vit-base-p16_16xb256-coslr-400e_in1k'
    assert name in evamm.list_models()
    code = (
        f'import {"evamm, mmpretrain" if first == "evamm" else "mmpretrain"}\n'
        "assert 'resnet18_8xb32_in1k' in mmpretrain.list_models()\n"
        'import evamm\n'
        'from mmpretrain.apis.model import ModelHub\n'
        f"assert 'mmpretrain/.mim' in ModelHub._models_dict['{name}'].config\n"
        'detectors = set(evamm.list_models("cascade-*"))\n'
        'assert detectors and not detectors & set(mmpretrain.list_models())\n'
        'missing = set(evamm.list_models()) - detectors - set(mmpretrain.list_models())\n'
        'assert not missing, missing\n'
        'from evamm.apis.hub import register_model_index\n'
        'register_model_index()\n'
    )
    done = subprocess.run(
        [sys.executable, '-W', 'error::UserWarning:evamm', '-c', code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert 'does not list' not in done.stderr


@pytest.mark.parametrize('dialect', ['official', 'timm', 'mmpretrain', 'evamm'])
def test_every_dialect_loads(hub: Path, config: Config, tmp_path: Path, dialect: str) -> None:
    source = get_model(config)
    state = to_evamm(source.state_dict())
    path = tmp_path / 'weights.pth'
    write_checkpoint({'model': from_evamm(state, dialect, head_dims=16)}, path)
    for name in ('eva02-test_3rdparty_in1k', 'EVA02_test'):
        loaded = mmpretrain.get_model(name, pretrained=str(path))
        images = torch.randn(2, 3, 56, 56)
        torch.testing.assert_close(loaded(images), source(images), rtol=0, atol=0)
    # pretrained=True takes the metafile's Weights, at another resolution than the file's
    write_checkpoint(source.state_dict(), tmp_path / 'weights.pt')
    loaded = mmpretrain.get_model(
        'eva02-test_3rdparty_in1k', pretrained=True, backbone=dict(img_size=84)
    )
    assert loaded.backbone.pos_embed.shape == (1, 1 + 6 * 6, 32)
    assert torch.equal(loaded.head.fc.weight, source.head.fc.weight)


def test_predictions_agree_with_ours(hub: Path, config: Config, photos: Path) -> None:
    source = get_model(config)
    meta = {'dataset_meta': {'classes': [f'digit {i}' for i in range(10)]}}
    write_checkpoint({'state_dict': source.state_dict(), 'meta': meta}, hub.parent / 'weights.pt')
    # A PNG, so that mmpretrain's OpenCV and our PIL decode the same pixels.
    theirs = mmpretrain.inference_model('eva02-test_3rdparty_in1k', str(photos / 'cat.png'))
    ours = evamm.inference_model(source, photos / 'cat.png')
    assert theirs['pred_class'] == ours['pred_class'] == f'digit {ours["pred_label"]}'
    assert theirs['pred_score'] == pytest.approx(ours['pred_score'], abs=1e-6)


def test_mmpretrains_feature_extractor_takes_our_models(hub: Path, photos: Path) -> None:
    model = mmpretrain.get_model('eva02-test-headless')
    theirs = mmpretrain.FeatureExtractor(model)(str(photos / 'cat.png'))[0][0]  # [D]
    ours = evamm.extract_features(model, photos / 'cat.png')[0]
    torch.testing.assert_close(theirs, ours)


def test_hostile_file_is_refused(hub: Path, tmp_path: Path) -> None:
    """mmengine's loaders fall back to full unpickling; a model of ours must not get there."""

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / 'owned').touch, ())

    path = tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'evil': Evil()}, path)
    with pytest.raises(CheckpointError):
        mmpretrain.get_model('eva02-test_3rdparty_in1k', pretrained=str(path))
    assert not (tmp_path / 'owned').exists()


def test_other_models_keep_mmengines_loader(tmp_path: Path) -> None:
    source, target = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    torch.save({'state_dict': source.state_dict(), 'meta': {'epoch': 3}}, tmp_path / 'a.pth')
    loaded = mmengine.runner.load_checkpoint(target, str(tmp_path / 'a.pth'))
    assert loaded['meta'] == {'epoch': 3}
    assert torch.equal(target.weight, source.weight)


def test_import_order_does_not_matter(tmp_path: Path) -> None:
    """A function taken from mmpretrain before evamm was imported still reads every dialect."""
    source = get_model('eva02-tiny-p14_in21k-pre_3rdparty_in1k')
    path = tmp_path / 'official.pt'
    write_checkpoint({'module': from_evamm(to_evamm(source.state_dict()), 'official')}, path)
    code = (
        'from mmpretrain import get_model\n'
        'import evamm\n'
        f"model = get_model('eva02_Ti_pt_in21k_ft_in1k_p14', pretrained={str(path)!r})\n"
        'print(model.backbone.blocks[11].mlp.w3.weight.double().sum().item())\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = source.backbone.blocks[11].mlp.w3.weight.double().sum().item()
    assert float(done.stdout.split()[-1]) == pytest.approx(expected, rel=1e-9)
