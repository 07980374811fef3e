"""Mistakes in a config that are silent or show late: misspelt keys, values of a wrong kind."""

import difflib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from ..errors import ConfigError

_PARTS = ('train', 'val', 'test')
# What a config sets at its top level, and anything reads.
KNOWN_KEYS = frozenset(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | {
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'load_options',
    'model_wrapper_cfg',
    'runner_type',
    'tta_model',
    'tta_pipeline',
}
_DICT, _LIST, _TEXT = (Mapping, 'a dict'), ((list, tuple), 'a list'), (str, 'a text')
_DICT_OR_LIST = ((Mapping, list, tuple), 'a dict or a list')
_KINDS = {
    **dict.fromkeys(('model', 'optim_wrapper', 'env_cfg', 'default_hooks', 'randomness'), _DICT),
    **dict.fromkeys(('data_preprocessor', 'auto_scale_lr', 'load_options'), _DICT),
    **{f'{part}_{kind}': _DICT for part in _PARTS for kind in ('dataloader', 'cfg')},
    **dict.fromkeys(('val_evaluator', 'test_evaluator', 'param_scheduler'), _DICT_OR_LIST),
    'custom_hooks': _LIST,
    **dict.fromkeys(('work_dir', 'default_scope'), _TEXT),
}
_LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')


def check_config(cfg: Mapping) -> None:
    """Everything that can be said about a whole config before anything is built.

    Raises:
        ConfigError: Names the key, what was expected, what was found and the remedy.
    """
    _check_names(cfg)
    _check_kinds(cfg)
    _check_numbers(cfg)
    _check_top_k(cfg)
    _check_one_hot(cfg)
    _check_work_dir(cfg['work_dir'])


def _check_names(cfg: Mapping) -> None:
    """Refuse misspelt settings.

    A config may have variables of its own. Only what a slip of the finger makes of a known name,
    a letter too few, too many or two in the wrong order, is a mistake.
    """
    for key in cfg:
        meant = next((known for known in sorted(KNOWN_KEYS) if is_slip(key, known)), None)
        if key not in KNOWN_KEYS and meant is not None:
            raise ConfigError(
                f'config key {key}: nothing reads it; did you mean {meant}? '
                'A variable of your own needs a name that is less similar.'
            )


def _check_kinds(cfg: Mapping) -> None:
    for key, (kinds, words) in _KINDS.items():
        value = cfg.get(key)
        if value is None and key != 'model':
            continue
        if not isinstance(value, kinds):
            raise ConfigError(f'config key {key}: expected {words}, found {value!r}.')
    level = cfg.get('log_level', 'INFO')
    if level not in _LEVELS and not isinstance(level, int):
        raise ConfigError(f'config key log_level: expected one of {_LEVELS}, found {level!r}.')


def _check_numbers(cfg: Mapping) -> None:
    seed = (cfg.get('randomness') or {}).get('seed')
    if seed is not None and (not isinstance(seed, int) or not 0 <= seed < 2**32):
        raise ConfigError(
            f'config key randomness.seed: expected a number from 0 to 2**32 - 1, found {seed!r}.'
        )
    for key in ('max_epochs', 'max_iters', 'val_interval'):
        value = (cfg.get('train_cfg') or {}).get(key, 1)
        if not isinstance(value, int) or value < 1:
            raise ConfigError(
                f'config key train_cfg.{key}: expected a number of at least 1, found {value!r}.'
            )
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    rate = optimizer.get('lr', 0) if isinstance(optimizer, Mapping) else 0
    if not isinstance(rate, (int, float)) or rate < 0:
        raise ConfigError(
            f'config key optim_wrapper.optimizer.lr: expected a number of at least 0, '
            f'found {rate!r}.'
        )


def is_slip(word: str, known: str) -> bool:
    """Whether one letter (two of a long word) is missing or doubled, or two changed places.

    A known word with an ending, such as `model_2`, is not.
    """
    if word == known or word.startswith(known):
        return False
    if word.lower().replace('-', '_') == known:
        return True
    if len(word) == len(known):
        differing = [i for i, pair in enumerate(zip(word, known)) if len(set(pair)) > 1]
        return (
            len(differing) == 2
            and differing[1] == differing[0] + 1
            and sorted(word) == sorted(known)
        )
    shorter, longer = sorted((word, known), key=len)
    if len(longer) - len(shorter) > (2 if len(known) >= 8 else 1):
        return False
    letters = iter(longer)
    return all(letter in letters for letter in shorter)


def option_warnings(cfg: Mapping, options: Mapping[str, Any]) -> Iterator[str]:
    """Warnings about ``--cfg-options`` that add something new or have no effect.

    Args:
        cfg: The config without the options.
        options: Values by dotted key.
    """
    for key in options:
        first, *rest = key.split('.')
        if first not in KNOWN_KEYS:
            if first in cfg:
                yield (
                    f'--cfg-options {key}: {first} is a variable of the config file, whose value '
                    f'is in its settings already; set these{_places(cfg, cfg[first])}.'
                )
            continue
        place: Any = cfg.get(first)
        for depth, part in enumerate(rest, 1):
            if isinstance(place, (list, tuple)) and part.isdigit() and int(part) < len(place):
                place = place[int(part)]
            elif isinstance(place, Mapping) and part in place:
                place = place[part]
            elif isinstance(place, Mapping) and part != '_delete_':
                close = difflib.get_close_matches(part, map(str, place), n=1, cutoff=0.75)
                # What is built from its `type` refuses arguments that it does not know.
                if close or 'type' not in place:
                    path = '.'.join([first, *rest][:depth])
                    hint = f' (close to {close[0]})' if close else ''
                    yield f'--cfg-options {key}: {path} has no {part}{hint} so far; it is added.'
                break
            else:
                break


def _places(cfg: Mapping, value: object) -> str:
    """Settings that have the value of a variable; equal numbers may be chance."""
    if not isinstance(value, (str, Mapping, list, tuple)):
        return ''

    def search(part: object, path: str) -> Iterator[str]:
        pairs = part.items() if isinstance(part, Mapping) else enumerate(part)
        for key, item in pairs:
            if item == value and type(item) is type(value):
                yield f'{path}.{key}'
            elif isinstance(item, (Mapping, list, tuple)):
                yield from search(item, f'{path}.{key}')

    settings = {key: cfg[key] for key in cfg if key in KNOWN_KEYS}
    found = [path[1:] for path in search(settings, '')]
    return f': {", ".join(found)}' if 0 < len(found) < 10 else ''


def _check_top_k(cfg: Mapping) -> None:
    """Refuse top-k of more classes than there are, which mmpretrain finds after an epoch."""
    classes = _num_classes(cfg)
    for name in ('val_evaluator', 'test_evaluator') if classes else ():
        metrics = cfg.get(name) or []
        for metric in [metrics] if isinstance(metrics, Mapping) else metrics:
            topk = metric.get('topk', 1) if isinstance(metric, Mapping) else 1
            largest = max(topk) if isinstance(topk, (list, tuple)) and topk else topk
            if isinstance(largest, int) and largest > classes:
                raise ConfigError(
                    f'config key {name}.topk: there is no top-{largest} of {classes} classes '
                    f'(model.head.num_classes); write {name}=dict(topk=(1,)).'
                )


def _check_one_hot(cfg: Mapping) -> None:
    """Refuse one-hot labels (of mixup, for instance) of another length than the head's."""
    model, classes = cfg['model'], _num_classes(cfg)
    preprocessor = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    own = preprocessor.get('num_classes')
    one_hot = (
        preprocessor.get('to_onehot')
        or preprocessor.get('batch_augments')
        or (model.get('train_cfg') or {}).get('augments')
    )
    if one_hot and classes and isinstance(own, int) and own != classes:
        raise ConfigError(
            f'config key data_preprocessor.num_classes: it is {own}, but model.head.num_classes '
            f'is {classes}; both must be the number of classes of the data.'
        )


def _num_classes(cfg: Mapping) -> int | None:
    head = cfg['model'].get('head')
    classes = head.get('num_classes') if isinstance(head, Mapping) else None
    return classes if isinstance(classes, int) else None


def _check_work_dir(path: str) -> None:
    place = Path(path).expanduser().absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ConfigError(
            f'work_dir {path}: {place} is a file, not a folder; choose another with --work-dir.'
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(
            f'work_dir {path}: {place} cannot be written to; choose another with --work-dir.'
        )


def warn(message: str) -> None:
    """Print a warning, once for all processes of a run on this machine."""
    if os.environ.get('LOCAL_RANK', '0') == '0':
        print(f'warning: {message}', file=sys.stderr)
