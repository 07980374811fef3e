"""What a checkpoint holds beside the weights, and how a runner takes it up again."""

import copy
import logging
import time

import mmengine
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.distributed.tensor import DTensor

from ..strategies.sharded_checkpoint import SHARDS, take_out
from ..strategies.sharding import gather, is_sharded, restore_gradients, shard_optimizer_state
from .plain import history_from_plain, history_to_plain, to_plain
from .rng_state import get_rng_state, set_rng_state


def bare_model(runner: Runner) -> nn.Module:
    """The model without the wrapper of distributed training."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def collect(
    runner: Runner,
    *,
    meta: dict,
    save_optimizer: bool,
    save_param_scheduler: bool,
    copy_tensors: bool = False,
) -> dict:
    """Everything a run needs to go on, as tensors on the CPU and plain values.

    Called by all processes: each contributes its random number generators. With sharded
    checkpoints the tensors of all processes are apart, in ``SHARDS``.

    Args:
        runner: A runner in training.
        meta: Entries for ``meta``, at least ``epoch`` and ``iter``.
        save_optimizer: Include the optimizer, the loss scaler and the generators.
        save_param_scheduler: Include the schedules.
        copy_tensors: Share no memory with the run.
    """
    dataset = runner.train_dataloader.dataset
    checkpoint = {
        'meta': {
            **meta,
            # Formatting it takes longer than writing a small checkpoint; the hub has it already.
            'cfg': runner.message_hub.runtime_info.get('cfg') or runner.cfg.pretty_text,
            'seed': runner.seed,
            'experiment_name': runner.experiment_name,
            'time': time.strftime('%Y%m%d_%H%M%S', time.localtime()),
            'mmengine_version': mmengine.__version__,
            'world_size': get_world_size(),
            'dataset_meta': to_plain(
                getattr(dataset, 'metainfo', None) or {}, what='metainfo of the training data'
            ),
        },
        'state_dict': bare_model(runner).state_dict(),
    }
    if save_optimizer:
        checkpoint['optimizer'] = runner.optim_wrapper.state_dict()
        checkpoint['rng'] = all_gather_object(get_rng_state())
        gradients = _open_gradients(runner)
        if gradients and is_sharded(bare_model(runner)):
            checkpoint['gradients'] = [gradients] * get_world_size()  # reduced already
        elif gradients:
            checkpoint['gradients'] = all_gather_object(gradients)
        buffers = all_gather_object(_buffers(runner))
        if len(buffers) > 1 and any(map(len, buffers)):
            # Statistics of batch norm, which are each process's own.
            checkpoint['buffers'] = buffers
        if hasattr(runner.train_loop, 'state_dict'):
            checkpoint['train_loop'] = runner.train_loop.state_dict()
    if save_param_scheduler and runner.param_schedulers is not None:
        checkpoint['param_schedulers'] = _map_schedulers(
            runner.param_schedulers, lambda scheduler: scheduler.state_dict()
        )
    runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
    # After the hooks, which may have values to add to the history.
    checkpoint['message_hub'] = history_to_plain(runner.message_hub.state_dict())
    shards = {}
    if getattr(runner.model, 'sharded_checkpoints', False):
        checkpoint, shards = take_out(checkpoint)
    plain = to_plain(gather(checkpoint), what='checkpoint', strict=True, copy=copy_tensors)
    return {**plain, SHARDS: shards} if shards else plain


def restore(
    runner: Runner, checkpoint: dict, *, resume_optimizer: bool, resume_param_scheduler: bool
) -> None:
    """Put a runner that has just been built into the state of ``checkpoint``.

    The weights are loaded strictly: this is the same model or it is a mistake.
    """
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    bare_model(runner).load_state_dict(checkpoint['state_dict'], strict=True)
    meta = checkpoint['meta']
    loop = runner.train_loop
    if hasattr(loop, 'resume_at'):
        loop.resume_at(meta['epoch'], meta['iter'])
    else:
        loop._epoch, loop._iter = meta['epoch'], meta['iter']
    _resume_seed(runner, meta.get('seed'))
    if hasattr(loop, 'load_state_dict') and 'train_loop' in checkpoint:
        loop.load_state_dict(checkpoint['train_loop'])
    runner.message_hub.load_state_dict(history_from_plain(checkpoint['message_hub']))
    if resume_optimizer and 'optimizer' in checkpoint:
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        # A copy: the tensors of a file that was read are mapped to it.
        state = copy.deepcopy(checkpoint['optimizer'])
        runner.optim_wrapper.load_state_dict(shard_optimizer_state(runner.optim_wrapper, state))
    if resume_param_scheduler and 'param_schedulers' in checkpoint:
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
        states = _flatten(checkpoint['param_schedulers'])
        count = len(_flatten(runner.param_schedulers))
        if len(states) != count:
            raise ValueError(f'{len(states)} param_schedulers, the config makes {count}')
        states = iter(states)
        _map_schedulers(
            runner.param_schedulers, lambda scheduler: scheduler.load_state_dict(next(states))
        )
    _resume_buffers(runner, checkpoint.get('buffers'))
    _resume_gradients(runner, checkpoint.get('gradients'))
    _resume_rng(runner, checkpoint.get('rng'))


def _open_gradients(runner: Runner) -> dict:
    """Gradients of this process that wait for an optimizer step; by name."""
    return {
        name: param.grad.detach() if isinstance(param.grad, DTensor) else param.grad.detach().cpu()
        for name, param in bare_model(runner).named_parameters()
        if param.grad is not None
    }


def _buffers(runner: Runner) -> dict:
    """Buffers that belong to the state of the model; by name."""
    model = bare_model(runner)
    saved = model.state_dict()
    return {name: saved[name].cpu() for name, _ in model.named_buffers() if name in saved}


def _resume_buffers(runner: Runner, buffers: list | None) -> None:
    if buffers is not None and len(buffers) == get_world_size():
        bare_model(runner).load_state_dict(buffers[get_rank()], strict=False)


def _resume_gradients(runner: Runner, gradients: list | None) -> None:
    """Put the sums of an unfinished accumulation back."""
    if gradients is None:
        return
    if is_sharded(bare_model(runner)):
        restore_gradients(bare_model(runner), gradients)
        return
    if len(gradients) != get_world_size():
        print_log(
            f'The checkpoint was written by {len(gradients)} process(es) in the middle of a '
            'gradient accumulation: with another number of processes, the gradients of this one '
            'optimizer step are lost.',
            logger='current',
            level=logging.WARNING,
        )
        return
    params = dict(bare_model(runner).named_parameters())
    for name, gradient in gradients[get_rank()].items():
        params[name].grad = gradient.to(params[name].device, copy=True)


def _map_schedulers(schedulers: list | dict, function: object) -> list | dict:
    if isinstance(schedulers, dict):
        return {name: [function(item) for item in items] for name, items in schedulers.items()}
    return [function(item) for item in schedulers]


def _flatten(states: list | dict) -> list:
    return [s for items in states.values() for s in items] if isinstance(states, dict) else states


def _resume_seed(runner: Runner, seed: int | None) -> None:
    """Use the seed of the resumed run, in the samplers too, which exist already."""
    configured = runner._randomness_cfg.get('seed')
    if seed is None or seed in (configured, runner.seed):
        return
    if configured is not None:
        runner.logger.warning(
            f'The resumed run had seed {seed}, the config has {configured}: going on with {seed}.'
        )
    runner._randomness_cfg.update(seed=seed)
    runner.set_randomness(**runner._randomness_cfg)
    if runner._randomness_cfg.get('diff_rank_seed', False):
        return  # the samplers then have a seed of their own, the same on all processes
    loader = runner.train_dataloader
    for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
        if hasattr(sampler, 'seed'):
            sampler.seed = runner.seed


def _resume_rng(runner: Runner, states: list | None) -> None:
    if states is not None and len(states) == get_world_size():
        if hasattr(runner.train_loop, 'start_with_rng_state'):
            runner.train_loop.start_with_rng_state(states[get_rank()])
        else:
            set_rng_state(states[get_rank()])
        return
    print_log(
        'The checkpoint has no random number states for this number of processes: the run goes '
        'on, but not with the numbers the uninterrupted one would have drawn.',
        logger='current',
        level=logging.WARNING,
    )
