"""The config that a name, a path or a Config stands for."""

import copy
import os

from mmengine.config import Config

from evamm.apis.model_index import ModelEntry, find_entry, index_root


def load_config(model: str | os.PathLike | Config) -> tuple[Config, ModelEntry | None]:
    """The config of a model name, of a config file (.py) or of a Config (copied).

    A file among evamm's own configs may be given as in ``_base_``: 'evamm::eva02/....py'.

    Returns:
        The config, and what the metafile says if a name was given.

    Raises:
        ValueError: Unknown name, or a config that Python cannot run.
        FileNotFoundError: No such config file.
    """
    if isinstance(model, Config):
        return copy.deepcopy(model), None
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(
            f'A model is given by its name, a config path or a Config, found '
            f'{type(model).__name__}.'
        )
    name = os.fspath(model)
    if name.endswith('.py'):
        if name.startswith('evamm::'):
            name = str(index_root() / 'configs' / name.removeprefix('evamm::'))
        if not os.path.isfile(name):
            raise FileNotFoundError(f'There is no config file at {name}')
        return _read(name), None
    entry = find_entry(name)
    return Config.fromfile(entry.config), entry


def _read(path: str) -> Config:
    """Reads a config file, which is Python and can fail in every way that Python can."""
    try:
        return Config.fromfile(path)
    except Exception as error:
        raise ValueError(
            f'The config {path} cannot be read: {type(error).__name__}: {error}'
        ) from error
