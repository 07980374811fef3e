"""The only place that works around third-party versions. It imports nothing else of evamm.

`install()` runs when evamm is imported, and costs next to nothing: it leaves notes about what to do
when torchvision, mmcv, mmengine or mmpretrain is imported, and imports none of them itself.
"""

import sys
from collections.abc import Callable
from types import ModuleType

from evamm.compat import onedl, torchvision_schemas, upstream
from evamm.compat.import_hooks import ImportHooks, SubstituteFinder

__all__ = ['install', 'require', 'require_scope']

_hooks = ImportHooks()


def install(*, on_mmpretrain: Callable[[], None] | None = None) -> None:
    """Installs every cure; calling it again adds nothing.

    Args:
        on_mmpretrain: called once mmpretrain has been imported, at once if it already was.
    """
    if _hooks not in sys.meta_path:
        sys.meta_path.insert(0, _hooks)
        sys.meta_path.append(SubstituteFinder('mmcv._ext', _populate_mmcv_ext))
        # Both modules describe torchvision's operators; which comes first is the release's choice.
        for name in ('torchvision._autograd_registrations', 'torchvision._meta_registrations'):
            _hooks.before_import(name, torchvision_schemas.declare_missing_schemas)
        for name, cure in upstream.CURES.items():
            _hooks.after_import(name, cure)
        _hooks.after_import('mmengine.logging.logger', onedl.silence_import_notes)
        _hooks.after_import('mmengine.config.utils', _introduce_packages)
    if on_mmpretrain is not None:
        _hooks.after_import('mmpretrain', lambda module: on_mmpretrain())


def require(*names: str) -> None:
    """Checks that libraries, by their import names, are there and new enough.

    Raises:
        ImportError: one is missing or too old; one sentence says what to install.
    """
    from evamm.compat import requirements

    requirements.require(*names)


def require_scope(scope: str | None) -> None:
    """Checks the library that a config with this `default_scope` is built from."""
    if scope in ('mmpretrain', 'mmdet', 'mmseg'):
        require(scope)


def _introduce_packages(config_utils: ModuleType) -> None:
    # mmengine reads `_base_ = 'evamm::...'` from the packages of this list only, and looks for
    # mmseg under the name of its upstream distribution, which the OneDL release does not have.
    config_utils.MODULE2PACKAGE.update(evamm='evamm', mmseg='mmseg')


def _populate_mmcv_ext(module: ModuleType) -> None:
    from evamm.compat import mmcv_ext

    mmcv_ext.populate(module)
