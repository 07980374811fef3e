"""Layer-wise learning-rate decay with as few parameter groups as possible."""

import difflib

import torch
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from evamm.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS

from ..errors import ConfigError
from .layer_decay_rules import RULES, Placement, find_trunks, place_parameters
from .towers import Tower, check_rate, check_towers, make_towers

_KEYS = ('layer_decay_rate', 'rule', 'custom_keys', 'towers')
_CUSTOM_KEYS = ('lr_mult', 'decay_mult')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Groups parameters by (learning-rate scale, weight decay), scale = rate ** (last - layer).

    It asks the model: any sub-module with ``get_layer_depth(name, prefix)`` (and, for the
    classification rule, ``no_weight_decay()``) is a trunk, so classifiers, pre-training models,
    detectors and segmentors are treated alike. There are at most 2 x (depth + 2) groups, and a few
    more with ``custom_keys``; each has ``lr``, ``lr_scale``, ``weight_decay`` and ``group_name``.
    The groups are printed as one table.

    Parts of a model can have rates of their own, as both towers of a CLIP model do::

        paramwise_cfg = dict(
            rule='classification',
            towers=dict(
                visual=dict(prefixes=['backbone.', 'head.'], lr=2e-4, layer_decay_rate=0.75),
                text=dict(prefixes=['text.'], lr=2e-5, layer_decay_rate=0.75),
            ),
        )

    What is in none of them (``logit_scale``) takes the values of the optimizer. Layers are counted
    in each tower by itself.

    AdamW runs fused on CPU and CUDA unless the config decides otherwise (``fused`` or
    ``foreach``).

    Args:
        optim_wrapper_cfg: Config of the wrapper with its ``optimizer``, which must have ``lr``.
        paramwise_cfg: ``layer_decay_rate`` (1.0: no decay of the rate), ``rule``
            (``'classification'``, ``'segmentation'`` or ``'detection'``: which parameters are
            exempt from weight decay and which layer they are in) and ``custom_keys``, which maps
            a part of a parameter name to ``dict(lr_mult=, decay_mult=)``; the longest match wins.
            ``towers`` maps a name to ``dict(prefixes=, lr=, weight_decay=, layer_decay_rate=)``;
            missing values are those of the optimizer and of ``layer_decay_rate``.

    Raises:
        ConfigError: Unknown key or rule, a rate outside (0, 1], no ``lr``, no trunk in the model, a
            custom key or a prefix that matches nothing.
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        cfg = self.paramwise_cfg
        for key in cfg:
            if key not in _KEYS:
                raise ConfigError(
                    f'optim_wrapper.paramwise_cfg: unknown key {key!r}; '
                    f'LayerDecayOptimWrapperConstructor knows {", ".join(_KEYS)}.'
                )
        rate = cfg.get('layer_decay_rate', 1.0)
        check_rate(rate, 'optim_wrapper.paramwise_cfg')
        if cfg.get('rule', 'classification') not in RULES:
            raise ConfigError(
                f'optim_wrapper.paramwise_cfg.rule must be one of {", ".join(RULES)}, '
                f'found {cfg["rule"]!r}.'
            )
        for key, options in cfg.get('custom_keys', {}).items():
            unknown = set(options) - set(_CUSTOM_KEYS)
            if unknown:
                raise ConfigError(
                    f'optim_wrapper.paramwise_cfg.custom_keys[{key!r}]: unknown '
                    f'{", ".join(sorted(unknown))}; known are {", ".join(_CUSTOM_KEYS)}.'
                )
        if self.base_lr is None:
            raise ConfigError('optim_wrapper.optimizer needs lr: the peak learning rate.')
        self.base_wd = self.base_wd or 0.0
        whole = Tower('', ('',), self.base_lr, self.base_wd, rate)
        self.towers = make_towers(cfg.get('towers'), whole)

    def __call__(self, model: nn.Module) -> object:
        """Build the optimizer wrapper for ``model``."""
        optimizer_type = self.optimizer_cfg['type']
        if isinstance(optimizer_type, str) and OPTIMIZERS.get(optimizer_type) is None:
            close = difflib.get_close_matches(optimizer_type, dir(torch.optim), n=2)
            raise ConfigError(
                f'optim_wrapper.optimizer.type={optimizer_type!r} is not a registered optimizer'
                f'{"; did you mean " + " or ".join(close) + "?" if close else "."}'
            )
        if optimizer_type in ('AdamW', torch.optim.AdamW) and 'foreach' not in self.optimizer_cfg:
            model_devices = {param.device.type for param in model.parameters()}
            fused = model_devices <= {'cpu', 'cuda'}
            self.optimizer_cfg.setdefault('fused', fused)
        if not self.paramwise_cfg:
            # mmengine ignores the constructor's rules when there are no options.
            self.paramwise_cfg = {'layer_decay_rate': 1.0}
        return super().__call__(model)

    def add_params(self, params: list[dict], module: nn.Module) -> None:
        """Append the groups of ``module``; mmengine calls this once with the whole model."""
        trunks = find_trunks(module)
        if not trunks:
            raise ConfigError(
                f'LayerDecayOptimWrapperConstructor: no sub-module of '
                f'{type(module).__name__} has get_layer_depth(name, prefix). Use a backbone that '
                'has it (evamm.EVAViT, most mmpretrain backbones), or another constructor.'
            )
        check_towers(self.towers, module)
        rule = self.paramwise_cfg.get('rule', 'classification')
        unused = set(self.paramwise_cfg.get('custom_keys', {}))
        members: dict[tuple[Tower, float, float], list[Placement]] = {}
        for placed in place_parameters(module, trunks, rule, self.towers):
            tower = placed.tower
            lr_scale = tower.layer_decay_rate ** (placed.num_layers - 1 - placed.layer)
            weight_decay = tower.weight_decay if placed.decays else 0.0
            key, options = self._custom(placed.name)
            unused.discard(key)
            lr_scale *= options.get('lr_mult', 1.0)
            if 'decay_mult' in options:
                weight_decay = tower.weight_decay * options['decay_mult']
            members.setdefault((tower, lr_scale, weight_decay), []).append(placed)
        if unused:
            raise ConfigError(
                f'optim_wrapper.paramwise_cfg.custom_keys: {", ".join(sorted(unused))} is not '
                'part of the name of any trainable parameter.'
            )
        order = {tower: index for index, tower in enumerate(self.towers)}
        groups = [
            {
                'params': [placed.param for placed in group],
                'lr': tower.lr * lr_scale,
                'weight_decay': weight_decay,
                'lr_scale': lr_scale,
                'group_name': _group_name(tower, group, weight_decay),
            }
            for (tower, lr_scale, weight_decay), group in sorted(
                members.items(),
                key=lambda item: (
                    order[item[0][0]],
                    item[1][0].layer,
                    item[0][1],
                    -item[0][2],
                ),
            )
        ]
        print_log(_table(groups, rule=rule, towers=self.towers), logger='current')
        params.extend(groups)

    def _custom(self, name: str) -> tuple[str | None, dict]:
        custom_keys = self.paramwise_cfg.get('custom_keys', {})
        matches = sorted((key for key in custom_keys if key in name), key=lambda k: (-len(k), k))
        return (matches[0], custom_keys[matches[0]]) if matches else (None, {})


def _group_name(tower: Tower, group: list[Placement], weight_decay: float) -> str:
    kind = 'decay' if weight_decay else 'no_decay'
    if tower.name == 'other' and tower.layer_decay_rate == 1:
        return f'other_{kind}'
    layers = sorted({placed.layer for placed in group})
    span = f'{layers[0]}' if len(layers) == 1 else f'{layers[0]}-{layers[-1]}'
    return f'{tower.name}_layer_{span}_{kind}'.lstrip('_')


def _table(groups: list[dict], *, rule: str, towers: list[Tower]) -> str:
    width = max(len(group['group_name']) for group in groups)
    header = (
        f'{"group":<{width}}  {"lr scale":>10}  {"peak lr":>10}  {"weight decay":>12}  '
        f'{"tensors":>7}  {"parameters":>13}'
    )
    rates = ', '.join(f'{tower.name} {tower.layer_decay_rate:g}'.strip() for tower in towers)
    lines = [f'Parameter groups: {len(groups)} (rule {rule}, layer decay {rates})', header]
    for group in groups:
        lines.append(
            f'{group["group_name"]:<{width}}  {group["lr_scale"]:>10.4g}  {group["lr"]:>10.4g}  '
            f'{group["weight_decay"]:>12.4g}  {len(group["params"]):>7}  '
            f'{sum(param.numel() for param in group["params"]):>13,}'
        )
    return '\n'.join(lines)
