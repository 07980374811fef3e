"""One sentence for a library that is missing, too old or there twice."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import evamm
from evamm import compat
from evamm.compat import requirements
from evamm.compat.requirements import require

REPO = Path(__file__).resolve().parents[2]


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


def test_a_config_needs_the_library_of_its_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {})
    for scope in ('mmpretrain', 'mmdet', 'mmseg'):
        with pytest.raises(ImportError, match=f'evamm needs {scope}'):
            compat.require_scope(scope)
    for scope in (None, 'mmengine', 'evamm'):
        compat.require_scope(scope)


def test_two_distributions_of_one_library_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {'onedl-mmengine': '0.10.12', 'mmengine': '0.10.7'})
    with pytest.warns(UserWarning, match='onedl-mmengine and mmengine are both installed'):
        require('mmengine')


def test_the_libraries_of_the_running_environment_are_accepted() -> None:
    require(*requirements._LIBRARIES)


# What a user calls first, and the arguments without which it would stop before any import
TOOLS = {
    'train.py': [],
    'test.py': [],
    'test_robustness.py': [],
    'infer.py': ['model', 'image'],
    'visualization/browse_dataset.py': [],
    'visualization/features.py': ['model', 'image'],
    'visualization/mim.py': ['config'],
}


def run_without_mmengine(code: str) -> str:
    """stderr of a process in which mmengine is not installed."""
    command = [sys.executable, '-c', f"import sys; sys.modules['mmengine'] = None; {code}"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize('tool', TOOLS)
def test_a_tool_says_what_to_install(tool: str) -> None:
    argv = [f'tools/{tool}', *TOOLS[tool]]
    stderr = run_without_mmengine(
        f"sys.argv = {argv}; import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    assert 'evamm needs mmengine, which is not installed: run `pip install' in stderr


@pytest.mark.parametrize('name', sorted({*evamm.__all__} - {'__version__', 'list_models'}))
def test_an_api_says_what_to_install_and_the_names_need_nothing(name: str) -> None:
    stderr = run_without_mmengine(f'import evamm; evamm.list_models(); evamm.{name}')
    assert 'evamm needs mmengine, which is not installed: run `pip install' in stderr
