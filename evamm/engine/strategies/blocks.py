"""The repeated blocks of a model: what is compiled once and sharded one by one."""

from collections.abc import Sequence

from torch import nn

from ..errors import ConfigError

_LIST_NAMES = ('blocks', 'layers')


def find_blocks(model: nn.Module, names: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Blocks of all transformers in a model, by full name, frozen teachers included.

    A transformer is a sub-module with ``get_layer_depth`` and a ``ModuleList`` called ``blocks``
    or ``layers`` (:class:`evamm.EVAViT`, the transformers of mmpretrain).

    Args:
        model: Any model.
        names: Full names of the lists (``'backbone.layers'``) or single modules to take instead.

    Raises:
        ConfigError: A name that is no module of the model, or nothing found.
    """
    lists = {}
    if names is None:
        for name, module in model.named_modules():
            if not hasattr(module, 'get_layer_depth'):
                continue
            for key in _LIST_NAMES:
                if isinstance(getattr(module, key, None), nn.ModuleList):
                    lists[f'{name}.{key}' if name else key] = getattr(module, key)
    else:
        for name in names:
            try:
                lists[name] = model.get_submodule(name)
            except AttributeError:
                raise ConfigError(
                    f'{name!r} is no module of {type(model).__name__}; its children are '
                    f'{", ".join(key for key, _ in model.named_children())}.'
                ) from None
    blocks = {}
    for name, module in lists.items():
        if isinstance(module, nn.ModuleList):
            blocks.update({f'{name}.{index}': block for index, block in enumerate(module)})
        else:
            blocks[name] = module
    if not blocks:
        raise ConfigError(
            f'{type(model).__name__} has no transformer with get_layer_depth and a list of blocks; '
            "name the modules: blocks=['backbone.layers']."
        )
    return blocks
