"""Model names, building and inference. Names are loaded when they are first touched."""

from functools import cache
from importlib import import_module
from types import ModuleType

from evamm import compat

_HOME = {
    'DetInferencer': 'detection',
    'FeatureExtractor': 'features',
    'ImageClassificationInferencer': 'classification',
    'ZeroShotInferencer': 'zero_shot',
    'embed_images': 'zero_shot',
    'embed_texts': 'zero_shot',
    'extract_features': 'features',
    'get_model': 'model',
    'get_transforms': 'transforms',
    'inference_model': 'classification',
    'list_models': 'model_index',
    'retrieval_gallery': 'gallery',
}

__all__ = sorted(_HOME)


@cache
def _load(home: str) -> ModuleType:
    if home != 'model_index':  # the names alone need none of these
        compat.require('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain')
    return import_module(f'{__name__}.{home}')


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(_load(_HOME[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
