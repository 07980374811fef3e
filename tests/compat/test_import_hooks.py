"""Callbacks around imports, and modules that stand in for missing ones."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from evamm.compat.import_hooks import ImportHooks, SubstituteFinder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package with one module, importable and not imported."""
    folder = tmp_path / 'watched'
    folder.mkdir()
    (folder / '__init__.py').write_text('log = ["package"]\n')
    (folder / 'part.py').write_text('from watched import log\nlog.append("part")\n')
    monkeypatch.syspath_prepend(tmp_path)
    meta_path = list(sys.meta_path)
    yield 'watched'
    sys.meta_path[:] = meta_path
    for name in [name for name in sys.modules if name.split('.')[0] == 'watched']:
        del sys.modules[name]


def install_hooks() -> ImportHooks:
    hooks = ImportHooks()
    sys.meta_path.insert(0, hooks)
    return hooks


def test_callbacks_run_around_the_execution(package: str) -> None:
    hooks = install_hooks()
    hooks.before_import('watched.part', lambda: sys.modules['watched'].log.append('before'))
    hooks.after_import('watched.part', lambda module: module.log.append('after'))
    module = importlib.import_module('watched')
    assert module.log == ['package']
    importlib.import_module('watched.part')
    importlib.import_module('watched.part')
    assert module.log == ['package', 'before', 'part', 'after']


def test_a_module_that_is_already_there_is_handed_over_at_once(package: str) -> None:
    module = importlib.import_module('watched')
    seen: list[ModuleType] = []
    install_hooks().after_import('watched', seen.append)
    assert seen == [module]


def test_a_watched_module_that_does_not_exist_stays_missing(package: str) -> None:
    install_hooks().after_import('watched.absent', lambda module: None)
    with pytest.raises(ModuleNotFoundError, match='watched.absent'):
        importlib.import_module('watched.absent')


def test_a_substitute_serves_only_where_nothing_is_found(package: str) -> None:
    def populate(module: ModuleType) -> None:
        module.answer = 42

    sys.meta_path.append(SubstituteFinder('watched.missing', populate))
    sys.meta_path.append(SubstituteFinder('watched.part', populate))
    assert importlib.import_module('watched.missing').answer == 42
    assert not hasattr(importlib.import_module('watched.part'), 'answer')
