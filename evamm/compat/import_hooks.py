"""Callbacks around the import of other packages, and substitutes for missing modules.

Nothing here imports the packages it watches: the cost of a cure is paid only by who imports the
package that needs it.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType


class ImportHooks(importlib.abc.MetaPathFinder):
    """First on `sys.meta_path`: calls back before and after chosen modules are executed."""

    def __init__(self) -> None:
        self._before: dict[str, Callable[[], None]] = {}
        self._after: dict[str, Callable[[ModuleType], None]] = {}
        self._searching: set[str] = set()

    def before_import(self, name: str, callback: Callable[[], None]) -> None:
        """Calls `callback()` just before module `name` is executed; never if it already was."""
        self._before[name] = callback

    def after_import(self, name: str, callback: Callable[[ModuleType], None]) -> None:
        """Calls `callback(module)` once `name` is executed: at once if it already was."""
        if name in sys.modules:
            callback(sys.modules[name])
        else:
            self._after[name] = callback

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        watched = fullname in self._before or fullname in self._after
        if not watched or fullname in self._searching:
            return None
        self._searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        if spec is not None and spec.loader is not None:
            self._wrap_execution(fullname, spec.loader)
        return spec

    def _wrap_execution(self, name: str, loader: importlib.abc.Loader) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            ours = module.__name__ == name  # a zip archive has one loader for all its modules
            if ours and name in self._before:
                self._before[name]()
            execute(module)
            if ours and name in self._after:
                self._after[name](module)

        loader.exec_module = exec_module


class SubstituteFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Last on `sys.meta_path`: provides a module that no other finder has."""

    def __init__(self, name: str, populate: Callable[[ModuleType], None]) -> None:
        self.name = name
        self._populate = populate

    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin='evamm.compat')

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves the creation of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        self._populate(module)
