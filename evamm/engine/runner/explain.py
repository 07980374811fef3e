"""What an exception means for the config or the data; none for exceptions that are bugs."""

import difflib
from collections.abc import Iterator
from types import FrameType
from typing import Any

from mmengine.registry import Registry
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from evamm.datasets.checks import explain_loading
from evamm.datasets.tokenizer import TokenizerUnavailableError
from evamm.datasets.transforms.loading import ImageDecodeError

# Part of the config that a method of the runner deals with
_SETTINGS = {
    'setup_env': 'env_cfg',
    'set_randomness': 'randomness',
    'build_logger': 'log_level or log_processor',
    'build_log_processor': 'log_processor',
    'build_visualizer': 'visualizer',
    'build_model': 'model',
    'wrap_model': 'model_wrapper_cfg',
    'register_hooks': 'default_hooks or custom_hooks',
    'register_default_hooks': 'default_hooks',
    'register_custom_hooks': 'custom_hooks',
    'build_train_loop': 'train_cfg',
    'build_val_loop': 'val_cfg',
    'build_test_loop': 'test_cfg',
    'build_dataloader': 'the data loader',
    'build_evaluator': 'the evaluator',
    'build_optim_wrapper': 'optim_wrapper',
    'scale_lr': 'auto_scale_lr',
    'build_param_scheduler': 'param_scheduler',
}


def message_of(error: BaseException) -> str:
    """Text of an exception in one line."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = ' '.join(text.partition('More details can be found')[0].split())
    return text or type(error).__name__


def explain(error: Exception) -> str | None:
    """One sentence about an exception that a config or its data set caused, else None."""
    built = setting = dataset = None
    for frame in _frames(error):
        names, function = frame.f_locals, frame.f_code.co_name
        owner = names.get('self')
        if function == 'run' and isinstance(owner, BaseLoop):
            return _in_a_batch(error)
        if isinstance(owner, Runner) and function in _SETTINGS:
            setting = _SETTINGS[function]
        elif function.startswith('build_') and 'obj_type' in names:
            built = names
        elif function in ('full_init', 'load_data_list') and hasattr(owner, 'load_data_list'):
            dataset = owner
    if dataset is not None:
        return explain_loading(dataset, message_of(error))
    if built is not None and not _is_runner(built):
        return _not_built(built, error)
    if setting is not None:
        return f'{setting} of the config cannot be used: {message_of(error)}'
    return None if built is None else f'the config cannot be used: {message_of(error)}'


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _is_runner(names: dict[str, Any]) -> bool:
    found = names.get('obj_cls', names.get('runner_cls'))
    return isinstance(found, type) and issubclass(found, Runner)


def _in_a_batch(error: Exception) -> str | None:
    """Missing or damaged files and missing packages are a user's matter; all else is a bug."""
    if not isinstance(error, (FileNotFoundError, ImageDecodeError, TokenizerUnavailableError)):
        return None
    return f'while loading a batch: {own_words(error)}'


def own_words(error: Exception) -> str:
    """Message of an exception; a loader worker hands over the text of its traceback."""
    text = str(error).strip()
    if not (text.startswith('Caught ') and 'DataLoader worker' in text.partition('\n')[0]):
        return text
    return text.splitlines()[-1].partition(': ')[2]


def _not_built(names: dict[str, Any], error: Exception) -> str:
    kind = names['obj_type']
    kind = kind if isinstance(kind, str) else getattr(kind, '__name__', str(kind))
    registry = names.get('registry')
    if not isinstance(error, KeyError) or not isinstance(registry, Registry):
        return f'{kind} of the config cannot be built: {message_of(error)}'
    if not message_of(error).startswith(f'{kind} is not in the'):
        return f'{kind} of the config cannot be built: KeyError: {message_of(error)}'
    known = sorted(_names(registry.root))
    plain = kind.rpartition('.')[2]
    close = [name for name in known if name.rpartition('.')[2] == plain] or (
        difflib.get_close_matches(kind, known, n=1, cutoff=0.75)
    )
    hint = f'did you mean {" or ".join(close)}?' if close else 'check its name and its prefix.'
    return f'type={kind!r} of the config is no {registry.name} that is known here; {hint}'


def _names(registry: Registry) -> Iterator[str]:
    """Types of a registry and those below it; of other libraries with their prefix."""
    prefix = ''
    if registry.scope == 'evamm':
        registry.import_from_location()
        prefix = 'evamm.'
    for name in registry.module_dict:
        yield prefix + name
    for child in registry.children.values():
        yield from _names(child)
