"""Cures for the upstream libraries, whose last releases predate torch 2.6 and numpy 2.

The OneDL releases of the same libraries need none of them: each cure first looks whether the
fault is there.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

# Names that numpy 2 removed, for the modules that still use them.
_REMOVED_FROM_NUMPY = {
    'mmpretrain.evaluation.metrics.retrieval': {'in1d': 'isin'},
}


def cure_package_lookup(package_utils: ModuleType) -> None:
    """Gives mmengine a package lookup without `pkg_resources`, which setuptools 82 removed.

    Without it `_base_ = 'mmdet::...'` and mmengine's hub fail.

    Args:
        package_utils: the module `mmengine.utils.package_utils`.
    """
    for replacement in (_is_installed, _get_installed_path):
        name = replacement.__name__.removeprefix('_')
        original = getattr(package_utils, name)
        if 'pkg_resources' in original.__code__.co_names:
            _rebind(original, replacement, package='mmengine')


def cure_checkpoint_reading(checkpoint: ModuleType) -> None:
    """Lets torch read the checkpoints of mmengine's runner in its safe mode, the default since 2.6.

    They hold `HistoryBuffer` objects and numpy numbers. A buffer lists its own methods through
    `getattr`, which would be an open door: the name is mapped to a function that only hands out
    these methods.

    Args:
        checkpoint: the module `mmengine.runner.checkpoint`.
    """
    if hasattr(checkpoint, 'get_torch_safe_globals'):
        return
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    multiarray = np._core.multiarray
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_history_buffer_method, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            *(type(np.dtype(kind)) for kind in ('bool', 'int32', 'int64', 'float32', 'float64')),
            multiarray._reconstruct,
            multiarray.scalar,
            (multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
            (multiarray.scalar, 'numpy.core.multiarray.scalar'),
        ]
    )


def cure_numpy_names(module: ModuleType) -> None:
    """Gives one module a view of numpy that has the removed names it uses."""
    numpy = module.np
    aliases = _REMOVED_FROM_NUMPY[module.__name__]
    if all(hasattr(numpy, old) for old in aliases):
        return
    view = ModuleType('numpy')
    view.__dict__.update({old: getattr(numpy, new) for old, new in aliases.items()})
    view.__getattr__ = lambda name: getattr(numpy, name)
    module.np = view


# What to call after which module has been imported
CURES: dict[str, Callable[[ModuleType], None]] = {
    'mmengine.utils.package_utils': cure_package_lookup,
    'mmengine.runner.checkpoint': cure_checkpoint_reading,
    **dict.fromkeys(_REMOVED_FROM_NUMPY, cure_numpy_names),
}


def _rebind(original: object, replacement: object, *, package: str) -> None:
    """Replaces a function in every module of `package` that has it, under whatever name."""
    for module_name, module in list(sys.modules.items()):
        if module_name.split('.')[0] != package:
            continue
        for name, value in list(vars(module).items()):
            if value is original:
                setattr(module, name, replacement)


def _is_installed(package: str) -> bool:
    import importlib.metadata  # slow, and rarely needed

    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return _package_folder(package) is not None
    return True


def _get_installed_path(package: str) -> str:
    """Folder of a package given by its import name or, failing that, its distribution name."""
    folder = _package_folder(package)
    if folder is None:
        import importlib.metadata

        distribution = importlib.metadata.distribution(package)
        top_level = (distribution.read_text('top_level.txt') or '').split()
        folder = _package_folder(top_level[0]) if top_level else None
    if folder is None:
        raise ValueError(f'cannot find the folder of the package {package!r}')
    return str(folder)


def _package_folder(name: str) -> Path | None:
    # A distribution name such as "mmcv-lite" is no module name, and a dot would import a parent.
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def _history_buffer_method(owner: object, name: str) -> object:
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise ValueError(f'a checkpoint may not ask for {name!r} of {owner!r}')
    return getattr(owner, name)
