"""Names, aliases and patterns, and that listing them loads nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

from evamm.apis import model_index
from evamm.apis.model_index import find_entry, index_root, list_models, load_entries


@pytest.fixture
def listed(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(model_index, 'index_root', lambda: index)
    return index


def test_entry_is_read_whole(listed: Path) -> None:
    entry = find_entry('EVA02-test_3rdparty_IN1K')
    assert entry.name == 'eva02-test_3rdparty_in1k'
    assert entry.aliases == ('eva02_test', 'eva02_test.in1k')
    assert entry.config == listed / 'configs' / 'tiny.py'
    assert entry.sha256 == 'abc'
    assert entry.weights.endswith('weights.pt')
    assert entry.results[0].metrics == {'Top 1 Accuracy': 80.0}
    assert find_entry('eva02_test') is entry
    assert find_entry('eva02-test-headless').results is None


def test_patterns(listed: Path) -> None:
    both = ['eva02-test-headless', 'eva02-test_3rdparty_in1k']
    assert list_models() == both
    assert list_models('EVA02-test') == both
    assert list_models('*3rdparty') == both[1:]
    assert list_models('eva02_test') == both[1:]  # by alias, listed once and by its name
    assert list_models('nothing') == []
    assert list_models(exclude_patterns='*headless') == both[1:]
    assert list_models(exclude_patterns=['eva02-test_', '*headless']) == []
    assert list_models(task='Image Classification') == both[1:]
    assert list_models(task='null') == both[:1]


def test_unknown_name_offers_the_nearest(listed: Path) -> None:
    with pytest.raises(
        ValueError,
        match='no model named "eva02-test_3rdparty_in21k".*Did you mean eva02-test_3rdparty_in1k',
    ):
        find_entry('eva02-test_3rdparty_in21k')


def test_two_entries_of_one_name_are_an_error(listed: Path) -> None:
    metafile = listed / 'configs' / 'metafile.yml'
    text = metafile.read_text()
    # The alias of one is the name of the other, in another case.
    metafile.write_text(text.replace('eva02_test.in1k', 'EVA02-test-headless'))
    load_entries.cache_clear()
    with pytest.raises(ValueError, match='eva02-test-headless.*already taken'):
        load_entries(listed)


@pytest.mark.parametrize(
    ('old', 'new', 'words'),
    [
        ('    Config: configs/headless.py', '', 'no "Config"'),
        ('Models:', 'Models: [', 'not valid YAML'),
    ],
)
def test_malformed_metafile_is_named(listed: Path, old: str, new: str, words: str) -> None:
    metafile = listed / 'configs' / 'metafile.yml'
    metafile.write_text(metafile.read_text().replace(old, new))
    load_entries.cache_clear()
    with pytest.raises(ValueError, match=f'metafile.yml.*{words}'):
        load_entries(listed)


def test_installed_layout_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel has the index in evamm/.mim; another package's model-index.yml may lie beside it."""
    package = tmp_path / 'site-packages' / 'evamm'
    (package / '.mim').mkdir(parents=True)
    (package / '.mim' / 'model-index.yml').touch()
    (package.parent / 'model-index.yml').touch()
    monkeypatch.setattr(model_index, '_PACKAGE_DIR', package)
    assert index_root() == package / '.mim'
    (package.parent / 'configs' / 'eva02').mkdir(parents=True)  # now it is a source tree
    assert index_root() == package.parent
    (package / '.mim' / 'model-index.yml').unlink()
    (package.parent / 'configs' / 'eva02').rmdir()
    with pytest.raises(FileNotFoundError, match='model-index.yml'):
        index_root()


def test_import_and_listing_stay_light() -> None:
    code = """
import sys
import evamm
heavy = ('torch', 'mmengine', 'mmcv', 'mmpretrain', 'timm', 'numpy')
assert not [name for name in heavy if name in sys.modules], 'import evamm'
assert {'get_model', 'list_models', 'extract_features'} <= set(dir(evamm))
evamm.list_models()
assert not [name for name in heavy if name in sys.modules], 'list_models'
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
