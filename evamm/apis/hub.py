"""The models of evamm under mmpretrain's own functions.

After `register_model_index`, `mmpretrain.list_models`, `mmpretrain.get_model` and
`mmpretrain.inference_model` know our names, and loading a checkpoint into one of our models goes
through `evamm.checkpoints`: any dialect, resized where needed, never unpickling code.
"""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evamm.apis.model_index import index_root, load_entries

# Modules that hold a reference to mmengine's `load_checkpoint` under that name.
_LOADER_MODULES = ('mmengine.runner.checkpoint', 'mmengine.runner', 'mmpretrain.apis.base')


def register_model_index(root: Path | None = None) -> None:
    """Makes mmpretrain know the models of evamm. Calling it again changes nothing.

    Args:
        root: Folder of model-index.yml; by default evamm's own, wherever it is installed.

    Raises:
        ValueError: Another package has registered one of our names.
    """
    from mmpretrain.apis.model import ModelHub

    _route_checkpoints()
    root = index_root() if root is None else root
    every = load_entries(root)
    # mmpretrain cannot build detectors and segmentors.
    entries = {alias: entry for alias, entry in every.items() if entry.library == 'mmpretrain'}
    names = {entry.name.lower(): entry for entry in entries.values()}
    known = ModelHub._models_dict
    # Where mmpretrain has a recipe of the same name, its own functions keep giving its own.
    theirs = {name: known[name] for name in names if name in known and _is_their_own(known[name])}
    # mmpretrain refuses a name that it already has, even from the same file.
    registered = [name for name in names if name in known and name not in theirs]
    for name in registered:
        config = known[name].config
        if Path(config).resolve() != names[name].config.resolve():
            raise ValueError(
                f'mmpretrain already has a model named {name}, with the config {config}; evamm '
                f'cannot register its own, {names[name].config}.'
            )
    if not registered:
        for name in theirs:
            del known[name]
        ModelHub.register_model_index(root / 'model-index.yml', config_prefix=root)
        for entry in every.values():
            if entry.library != 'mmpretrain':
                known.pop(entry.name.lower(), None)
        known.update(theirs)
        _make_way(ModelHub, {name: known[name] for name in names if name not in theirs})
    _resolve_aliases(ModelHub, {alias: entry.name for alias, entry in entries.items()})


def _is_their_own(model: Any) -> bool:
    import mmpretrain

    package = Path(mmpretrain.__file__).resolve().parent
    return isinstance(model.config, str) and Path(model.config).resolve().is_relative_to(package)


def _make_way(hub: type, ours: dict[str, Any]) -> None:
    """Lets mmpretrain list its own models, which it does late and only if no name is taken."""
    before = hub._register_mmpretrain_models
    original = getattr(before, '_evamm_original', before)
    ours = {**getattr(before, '_evamm_models', {}), **ours}  # of another index

    @functools.wraps(original)
    def register(cls: type) -> None:
        known = cls._models_dict
        aside = [name for name, model in ours.items() if known.get(name) is model]
        for name in aside:
            del known[name]
        try:
            original()
        finally:
            for name in aside:
                known.setdefault(name, ours[name])

    register._evamm_original = original
    register._evamm_models = ours
    hub._register_mmpretrain_models = classmethod(register)


def _resolve_aliases(hub: type, names: dict[str, str]) -> None:
    """Lets mmpretrain find a model by its alias, without listing the model twice."""
    original = getattr(hub.get, '_evamm_original', hub.get)

    @functools.wraps(original)
    def get(cls: type, model_name: str) -> Any:
        return original(names.get(model_name.lower(), model_name))

    get._evamm_original = original
    hub.get = classmethod(get)


def _route_checkpoints() -> None:
    """Puts our loader before mmengine's `load_checkpoint`, for models with an EVA trunk only."""
    import mmengine.runner.checkpoint

    loader = mmengine.runner.checkpoint.load_checkpoint
    if not hasattr(loader, '_evamm_original'):
        loader = _make_loader(loader)
    for name in _LOADER_MODULES:
        if name in sys.modules:
            sys.modules[name].load_checkpoint = loader


def _make_loader(original: Callable[..., dict]) -> Callable[..., dict]:
    @functools.wraps(original)
    def load_checkpoint(
        model: Any,
        filename: str | os.PathLike,
        map_location: Any = None,
        strict: bool = False,
        logger: Any = None,
        revise_keys: Sequence[tuple[str, str]] = ((r'^module\.', ''),),
    ) -> dict:
        if not _has_trunk(model):
            return original(model, filename, map_location, strict, logger, revise_keys)
        from evamm.apis.model import load_weights

        return {'meta': load_weights(model, filename)}

    load_checkpoint._evamm_original = original
    return load_checkpoint


def _has_trunk(model: Any) -> bool:
    trunk_module = sys.modules.get('evamm.models.backbones.eva_vit')
    if trunk_module is None:  # then no such model can exist
        return False
    return any(isinstance(module, trunk_module.EVAViT) for module in model.modules())
