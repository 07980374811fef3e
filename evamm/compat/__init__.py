"""The only place that works around third-party versions. It imports nothing else of evamm."""

from collections.abc import Callable
from importlib.util import find_spec


def install(*, model_index_callback: Callable[[], None] | None = None) -> None:
    """Installs the cures; calling it again does nothing."""


def require(name: str) -> None:
    """Raises one sentence that says what to install when the library `name` is missing."""
    if find_spec(name) is None:
        raise ImportError(f'evamm needs {name}, which is not installed.')
