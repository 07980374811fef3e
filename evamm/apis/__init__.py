"""Model names, building and inference. Names are loaded when they are first touched."""

from importlib import import_module

_HOME = {
    'FeatureExtractor': 'features',
    'ImageClassificationInferencer': 'classification',
    'extract_features': 'features',
    'get_model': 'model',
    'get_transforms': 'transforms',
    'inference_model': 'classification',
    'list_models': 'model_index',
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f'{__name__}.{_HOME[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
