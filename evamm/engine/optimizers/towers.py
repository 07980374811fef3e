"""Parts of a model with a learning rate, weight decay and layer decay of their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from ..errors import ConfigError

_KEYS = ('prefixes', 'lr', 'weight_decay', 'layer_decay_rate')
_WHERE = 'optim_wrapper.paramwise_cfg.towers'


@dataclass(frozen=True)
class Tower:
    """Parameters whose names begin with one of ``prefixes``, and how they are trained.

    ``name`` is empty for the only tower of a model that is not divided.
    """

    name: str
    prefixes: tuple[str, ...]
    lr: float
    weight_decay: float
    layer_decay_rate: float


def check_rate(rate: float, key: str) -> None:
    """Refuse a layer decay outside (0, 1].

    Raises:
        ConfigError: With the name of the key.
    """
    if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
        raise ConfigError(f'{key}.layer_decay_rate must be in (0, 1], found {rate}.')


def make_towers(cfg: Mapping | None, base: Tower) -> list[Tower]:
    """Towers of a config, and a last one, ``'other'``, for what is in none of them.

    Args:
        cfg: ``paramwise_cfg.towers``: name to ``dict(prefixes=[...], lr=, weight_decay=,
            layer_decay_rate=)``; what is missing is that of ``base``.
        base: The whole model as one tower.

    Raises:
        ConfigError: An unknown key, no prefixes, a rate out of range or a prefix used twice.
    """
    if not cfg:
        return [base]
    towers, owners = [], {}
    for name, options in cfg.items():
        where = f'{_WHERE}.{name}'
        unknown = sorted(set(options) - set(_KEYS))
        if unknown:
            raise ConfigError(
                f'{where}: unknown key {", ".join(unknown)}; known are {", ".join(_KEYS)}.'
            )
        prefixes = options.get('prefixes')
        if not isinstance(prefixes, Sequence) or isinstance(prefixes, str) or not prefixes:
            raise ConfigError(
                f"{where}.prefixes must be a list of beginnings of names, such as ['text.'], "
                f'found {prefixes!r}.'
            )
        for prefix in prefixes:
            if owners.setdefault(prefix, name) != name:
                raise ConfigError(f'{where}.prefixes: {prefix!r} belongs to {owners[prefix]} too.')
        rate = options.get('layer_decay_rate', base.layer_decay_rate)
        check_rate(rate, where)
        towers.append(
            Tower(
                name=name,
                prefixes=tuple(prefixes),
                lr=options.get('lr', base.lr),
                weight_decay=options.get('weight_decay', base.weight_decay),
                layer_decay_rate=rate,
            )
        )
    return [*towers, Tower('other', ('',), base.lr, base.weight_decay, base.layer_decay_rate)]


def check_towers(towers: Sequence[Tower], model: nn.Module) -> None:
    """Refuse prefixes that no parameter has and layer decay where there are no layers.

    Frozen parameters and trunks count as well.

    Raises:
        ConfigError: It names the tower.
    """
    names = [name for name, _ in model.named_parameters()]
    layered = [f'{name}.' for name, module in model.named_modules() if _has_layers(module)]
    for tower in towers:
        where = f'{_WHERE}.{tower.name}'
        for prefix in tower.prefixes:
            if not any(name.startswith(prefix) for name in names):
                children = sorted({name.split('.')[0] for name in names})
                raise ConfigError(
                    f'{where}.prefixes: no parameter begins with {prefix!r}; the parts of '
                    f'{type(model).__name__} are {", ".join(children)}.'
                )
        divided = tower.name not in ('', 'other') and tower.layer_decay_rate < 1
        if divided and not any(tower_of(name, towers) is tower for name in layered):
            raise ConfigError(
                f'{where}.layer_decay_rate={tower.layer_decay_rate:g}, but nothing in the tower '
                'has get_layer_depth(name, prefix). Use layer_decay_rate=1.0.'
            )


def _has_layers(module: nn.Module) -> bool:
    return hasattr(module, 'get_layer_depth')


def tower_of(name: str, towers: Sequence[Tower]) -> Tower:
    """Tower with the longest prefix that a name has."""
    matches = [
        (len(prefix), -index, tower)
        for index, tower in enumerate(towers)
        for prefix in tower.prefixes
        if name.startswith(prefix)
    ]
    return max(matches, key=lambda match: match[:2])[2]
