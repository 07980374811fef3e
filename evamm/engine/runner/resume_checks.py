"""Is the state of a checkpoint that of this run? Asked before anything of the run is changed."""

from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapper
from torch import nn

from evamm.checkpoints import CheckpointError
from evamm.checkpoints.errors import abbreviate


def check_state(
    checkpoint: Mapping, path: str, model: nn.Module, optim_wrapper: OptimWrapper | Any | None
) -> None:
    """Compare a training checkpoint with the model and the optimizer that are to take it up.

    Raises:
        CheckpointError: It is of another model or of another optimizer, or parts are missing.
    """
    problem = _in_weights(checkpoint['state_dict'], model)
    if problem:
        raise CheckpointError(
            f'{path}: cannot resume from it, it is of another model than the config: {problem}. '
            'Take the config of that run, or give the file as load_from to start a new run.'
        )
    problem = _in_optimizer(checkpoint['optimizer'], optim_wrapper)
    for entry in checkpoint.get('rng') or ():
        if not isinstance(entry, Mapping) or not {'python', 'numpy', 'torch'} <= set(entry):
            problem = problem or 'rng lacks the state of a random number generator'
    if problem:
        raise CheckpointError(
            f'{path}: cannot resume from it, {problem}. Take the config of that run, or give the '
            'file as load_from to start a new run from its weights.'
        )


def _in_weights(found: Mapping, model: nn.Module) -> str:
    wanted = {name: value for name, value in model.state_dict().items() if hasattr(value, 'shape')}
    missing = [name for name in wanted if name not in found]
    if missing:
        return f'{abbreviate(missing, 3)} is missing'
    unknown = [name for name in found if name not in model.state_dict()]
    if unknown:
        return f'{abbreviate(unknown, 3)} is not in the model'
    for name, value in wanted.items():
        shape = getattr(found[name], 'shape', None)
        if shape is None or tuple(shape) != tuple(value.shape):
            shown = type(found[name]).__name__ if shape is None else list(shape)
            return f'{name} is {shown} in the file and {list(value.shape)} in the model'
    return ''


def _in_optimizer(found: Mapping, optim_wrapper: OptimWrapper | Any | None) -> str:
    optimizer = getattr(optim_wrapper, 'optimizer', None)
    if optimizer is None:  # several optimizers, or none so far
        return ''
    groups, state = found.get('param_groups'), found.get('state')
    if not isinstance(groups, (list, tuple)) or not isinstance(state, Mapping):
        return 'optimizer lacks param_groups or state'
    if len(groups) != len(optimizer.param_groups):
        return (
            f'its optimizer has {len(groups)} parameter groups, the config makes '
            f'{len(optimizer.param_groups)}'
        )
    # No state at all is right before the first step and for optimizers that need none.
    for index, (theirs, ours) in enumerate(zip(groups, optimizer.param_groups)):
        numbers = theirs.get('params') if isinstance(theirs, Mapping) else None
        if not isinstance(numbers, (list, tuple)) or len(numbers) != len(ours['params']):
            return f'parameter group {index} of its optimizer has other parameters'
        entries = {number: state[number] for number in numbers if number in state}
        problem = _in_group(entries, dict(zip(numbers, ours['params'])))
        if problem:
            return problem
    return ''


def _in_group(entries: Mapping, params: Mapping) -> str:
    """Entries of one group, one per parameter, hold the same kinds of values."""
    kinds = set()
    for entry in entries.values():
        kinds |= set(entry if isinstance(entry, Mapping) else ())
    for number, entry in entries.items():
        lost = kinds - set(entry if isinstance(entry, Mapping) else ())
        if lost or not kinds:
            return f'optimizer.state.{number} lacks {", ".join(sorted(map(str, lost)))}'
        for name in ('exp_avg', 'exp_avg_sq', 'momentum_buffer'):
            shape = getattr(entry.get(name), 'shape', params[number].shape)
            if shape != params[number].shape:
                return (
                    f'optimizer.state.{number}.{name} is {list(shape)}, its parameter '
                    f'{list(params[number].shape)}'
                )
    return ''
