"""What an image-text model predicts, as its `test_cfg` says."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from evamm.engine.errors import ConfigError

from .retrieval import Retrieval
from .zero_shot import ZeroShot

PREDICTORS = {'zero_shot': ZeroShot, 'retrieval': Retrieval}


def build_predictor(test_cfg: Mapping[str, Any] | None) -> nn.Module | None:
    """The predictor of a `test_cfg`; a module without parameters, to be a child of the model.

    Args:
        test_cfg: ``dict(type='zero_shot', classes=..., templates=...)`` or
            ``dict(type='retrieval')``; None for none.

    Raises:
        ConfigError: Unknown type or argument.
    """
    if not test_cfg:
        return None
    arguments = dict(test_cfg)
    kind = arguments.pop('type', None)
    if kind not in PREDICTORS:
        raise ConfigError(
            f'model.test_cfg.type must be one of {", ".join(map(repr, PREDICTORS))}, '
            f'found {kind!r}.'
        )
    known = list(inspect.signature(PREDICTORS[kind].__init__).parameters)[1:]
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ConfigError(
            f'model.test_cfg: {kind!r} takes {", ".join(known)}, found {", ".join(unknown)}.'
        )
    return PREDICTORS[kind](**arguments)
