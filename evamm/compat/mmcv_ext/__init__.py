"""A substitute for `mmcv._ext`, mmcv's compiled operators, in plain PyTorch.

It is used only where mmcv has no compiled operators: a machine without a compiler, mmcv-lite, or
a torch release that has no mmcv wheel. Each function has the name and the arguments of the compiled
operator, writes into the tensors that one writes into, and returns what that one returns. The
operators evamm does not provide are there by name, because mmcv looks for them when it is
imported, and raise an error when they are called.
"""

from collections.abc import Callable
from types import ModuleType


def populate(module: ModuleType) -> None:
    """Fills the empty module `mmcv._ext`."""
    from . import deform_attn, focal_loss, nms, roi_align, soft_nms

    for family in (deform_attn, focal_loss, nms, roi_align, soft_nms):
        for name in family.__all__:
            setattr(module, name, getattr(family, name))
    module.get_compiler_version = _not_compiled
    module.get_compiling_cuda_version = _not_compiled
    module.__getattr__ = _missing_operator
    module.__doc__ = __doc__


def _not_compiled() -> str:
    return 'not compiled: evamm.compat.mmcv_ext in place of mmcv._ext'


def _missing_operator(name: str) -> Callable[..., None]:
    if name.startswith('_'):
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")

    def not_provided(*args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            f'the mmcv operator {name!r} needs a compiled mmcv, and the one installed here has no '
            'compiled operators: install an mmcv wheel made for this torch version, or build mmcv '
            'from source (docs/en/install.md)'
        )

    not_provided.__name__ = name
    return not_provided
