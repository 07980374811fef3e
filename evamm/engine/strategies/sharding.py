"""Between sharded tensors and whole ones: what loading, saving and averaging need.

A sharded parameter is a ``DTensor``; torch refuses to mix it with ordinary tensors, so everything
that comes from a file is cut to shape here first. Cutting needs no communication, because every
process reads the file; gathering does and must be called by all processes.
"""

from collections.abc import Callable, Mapping

import torch
from mmengine.dist import is_main_process
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(model: nn.Module) -> bool:
    """Whether any parameter of a model is spread over processes."""
    return any(isinstance(param, DTensor) for param in model.parameters())


def local_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(value: Tensor, reference: Tensor) -> Tensor:
    """``value`` laid out as ``reference`` is; unchanged if that is an ordinary tensor."""
    if not isinstance(reference, DTensor) or isinstance(value, DTensor):
        return value
    return distribute_tensor(
        value.to(reference.device),
        reference.device_mesh,
        reference.placements,
        src_data_rank=None,  # every process has the whole tensor and keeps its part
    )


def map_tensors(tree: object, function: Callable[[Tensor], Tensor]) -> object:
    """A copy of nested dicts, lists and tuples with ``function`` applied to every tensor."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, Mapping):
        return {key: map_tensors(value, function) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_tensors(value, function) for value in tree)
    return tree


def gather(tree: object) -> object:
    """Nested data with every sharded tensor made whole, on the CPU of the main process.

    Other processes get empty tensors in their place: they have nothing to write.
    """
    whole: dict[int, Tensor] = {}

    def make_whole(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        if id(tensor) not in whole:
            full = tensor.detach().full_tensor()
            whole[id(tensor)] = full.cpu() if is_main_process() else full.new_empty(0)
        return whole[id(tensor)]

    return map_tensors(tree, make_whole)


def accept_whole_tensors(model: nn.Module) -> None:
    """Let ``load_state_dict`` of a sharded model take ordinary tensors."""

    def cut(module: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
        for name, param in module.named_parameters():
            if f'{prefix}{name}' in state_dict:
                state_dict[f'{prefix}{name}'] = shard_like(state_dict[f'{prefix}{name}'], param)

    model.register_load_state_dict_pre_hook(cut)


def copy_parameters(model: nn.Module) -> nn.Module:
    """A module with copies of all parameters and buffers under the same names, and no code.

    Sharded modules cannot be deep-copied; a moving average needs no more than this.
    """
    copies: dict[int, nn.Parameter] = {}

    def copy(module: nn.Module) -> nn.Module:
        shell = nn.Module()
        for name, param in module._parameters.items():
            if param is not None and id(param) not in copies:
                copies[id(param)] = nn.Parameter(param.detach().clone(), requires_grad=False)
            shell.register_parameter(name, None if param is None else copies[id(param)])
        for name, buffer in module._buffers.items():
            shell.register_buffer(
                name,
                None if buffer is None else buffer.detach().clone(),
                persistent=name not in module._non_persistent_buffers_set,
            )
        for name, child in module._modules.items():
            shell.register_module(name, None if child is None else copy(child))
        return shell

    shell = copy(model)
    accept_whole_tensors(shell)
    return shell


def shard_optimizer_state(optim_wrapper: OptimWrapper | OptimWrapperDict, state: dict) -> dict:
    """The state of an optimizer from a file, laid out as its parameters are."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        return {
            name: shard_optimizer_state(wrapper, state[name])
            for name, wrapper in optim_wrapper.items()
        }
    params = [p for group in optim_wrapper.optimizer.param_groups for p in group['params']]
    indices = [index for group in state['param_groups'] for index in group['params']]
    of_param = dict(zip(indices, params, strict=True))

    def lay_out(value: object, param: Tensor) -> object:
        # Counters of steps stay ordinary tensors.
        matches = isinstance(value, Tensor) and value.shape == param.shape and value.ndim
        return shard_like(value, param) if matches else value

    states = {
        index: {key: lay_out(value, of_param[index]) for key, value in values.items()}
        for index, values in state['state'].items()
    }
    return {**state, 'state': states}


@torch.no_grad()
def restore_gradients(model: nn.Module, gradients: list[dict[str, Tensor]]) -> None:
    """Put gradients of an unfinished accumulation into a sharded model.

    Sharded gradients are averages over the processes already, so those of processes that kept
    their own (``gradients`` has one dict for each) are averaged.
    """
    params = dict(model.named_parameters())
    for name in gradients[0]:
        mean = torch.stack([part[name].float() for part in gradients]).mean(0)
        param = params[name]
        param.grad = shard_like(mean.to(param.dtype), param)
