"""evamm: the EVA family of vision models as one OpenMMLab-style framework.

Importing this package is quick, silent and offline: no torch, no OpenMMLab library. The names of
`evamm.apis` are reachable from here and load what they need when they are first touched.
"""

import warnings
from importlib import import_module

from evamm import compat
from evamm.version import __version__

_API_NAMES = (
    'DetInferencer',
    'FeatureExtractor',
    'ImageClassificationInferencer',
    'ZeroShotInferencer',
    'embed_images',
    'embed_texts',
    'extract_features',
    'get_model',
    'get_transforms',
    'inference_model',
    'list_models',
    'retrieval_gallery',
)

__all__ = ['__version__', *_API_NAMES]


def _add_models_to_mmpretrain() -> None:
    try:
        import_module('evamm.apis.hub').register_model_index()
    except (OSError, ValueError) as error:  # mmpretrain itself must stay importable
        warnings.warn(f'mmpretrain does not list the models of evamm: {error}', stacklevel=2)


compat.install(on_mmpretrain=_add_models_to_mmpretrain)


def __getattr__(name: str) -> object:
    if name in _API_NAMES:
        return getattr(import_module('evamm.apis'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_API_NAMES})
