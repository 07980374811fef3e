"""Cures for old releases, on small copies of the faults: the real ones are met by tests/smoke."""

from types import ModuleType

import numpy as np
import pytest

from evamm.compat import upstream


def test_package_lookup_finds_modules_and_distributions() -> None:
    assert upstream._is_installed('numpy') and upstream._is_installed('importlib')
    assert not upstream._is_installed('no_such_package')
    numpy_folder = str(np.__path__[0])
    assert upstream._get_installed_path('numpy') == numpy_folder
    assert upstream._get_installed_path('pyyaml').endswith('yaml')  # the distribution's name
    with pytest.raises(ModuleNotFoundError, match='no_such_package'):
        upstream._get_installed_path('no_such_package')


def test_package_lookup_replaces_only_what_needs_pkg_resources() -> None:
    def is_installed(package: str) -> bool:
        import pkg_resources  # noqa: F401

        return False

    def get_installed_path(package: str) -> str:
        return 'kept'

    module = ModuleType('mmengine.fake')
    module.is_installed, module.get_installed_path = is_installed, get_installed_path
    other = ModuleType('mmengine.fake_user')
    other.under_another_name = is_installed
    with pytest.MonkeyPatch.context() as patch:
        for fake in (module, other):
            patch.setitem(upstream.sys.modules, fake.__name__, fake)
        upstream.cure_package_lookup(module)
    assert module.is_installed is upstream._is_installed
    assert other.under_another_name is upstream._is_installed
    assert module.get_installed_path('x') == 'kept'


def test_numpy_view_adds_names_for_one_module_only() -> None:
    module = ModuleType('mmpretrain.evaluation.metrics.retrieval')
    module.np = np
    upstream.cure_numpy_names(module)
    assert module.np.in1d([1, 5], [5]).tolist() == [False, True]
    assert module.np.arange(3).tolist() == [0, 1, 2]
    assert module.np.ndarray is np.ndarray


def test_checkpoints_may_ask_for_the_methods_of_a_buffer_only() -> None:
    from mmengine.logging import HistoryBuffer

    assert upstream._history_buffer_method(HistoryBuffer, 'mean') is HistoryBuffer.mean
    for owner, name in ((HistoryBuffer, '__class__'), (HistoryBuffer, 'update'), (np, 'load')):
        with pytest.raises(ValueError, match='may not ask for'):
            upstream._history_buffer_method(owner, name)
