"""One sentence for a library that is missing, too old or there twice."""

import importlib.metadata
import importlib.util

import pytest

from evamm.compat import requirements
from evamm.compat.requirements import require


def pretend(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str]) -> None:
    def version(distribution: str) -> str:
        if distribution not in installed:
            raise importlib.metadata.PackageNotFoundError(distribution)
        return installed[distribution]

    monkeypatch.setattr(importlib.metadata, 'version', version)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object() if installed else None)


def test_a_missing_library_names_both_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {})
    with pytest.raises(ImportError) as caught:
        require('mmdet')
    message = str(caught.value)
    assert 'evamm needs mmdet, which is not installed' in message
    assert 'pip install "onedl-mmdetection==3.5.1"' in message and '"mmdet==3.3.0"' in message
    assert '\n' not in message
    assert caught.value.name == 'mmdet'


@pytest.mark.parametrize('version', ['2.9.1', '2.9.0+cu128', '1.13'])
def test_an_old_library_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    pretend(monkeypatch, {'torch': version})
    with pytest.raises(ImportError, match=r'torch >= 2.10, found .*: run `pip install "torch=='):
        require('torch')


@pytest.mark.parametrize('version', ['2.10.0', '2.13.0+cpu', '3.0.0a1'])
def test_a_new_enough_library_is_accepted(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    pretend(monkeypatch, {'torch': version})
    require('torch')


def test_two_distributions_of_one_library_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {'onedl-mmengine': '0.10.12', 'mmengine': '0.10.7'})
    with pytest.warns(UserWarning, match='onedl-mmengine and mmengine are both installed'):
        require('mmengine')


def test_the_libraries_of_the_running_environment_are_accepted() -> None:
    require(*requirements._LIBRARIES)
