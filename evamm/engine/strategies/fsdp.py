"""Fully sharded data parallel training (torch's FSDP2) as a model wrapper."""

from collections.abc import Sequence

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, broadcast
from mmengine.optim import OptimWrapper
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from evamm.registry import MODEL_WRAPPERS

from ..errors import ConfigError
from .blocks import find_blocks
from .sharding import accept_whole_tensors

_DTYPES = {
    None: None,
    'bfloat16': torch.bfloat16,
    'float16': torch.float16,
    'float32': torch.float32,
}


def _dtype(value: str | None, key: str) -> torch.dtype | None:
    if value not in _DTYPES:
        raise ConfigError(
            f'model_wrapper_cfg.{key} must be one of {", ".join(map(repr, _DTYPES))}, '
            f'found {value!r}.'
        )
    return _DTYPES[value]


def _average_gradient(param: nn.Parameter) -> None:
    all_reduce(param.grad, op='mean')


@MODEL_WRAPPERS.register_module()
class FSDP2(nn.Module):
    """Spreads parameters, gradients and optimizer state over all processes.

    Each block of each transformer is one unit, frozen teachers included, the rest of the model
    another; a unit is whole on a device only while it computes. Parameters without an axis (a logit
    scale) cannot be cut: every process has them whole. Parameter names do not change, so
    layer decay, frozen parts, checkpoints and loading work as with one process, and so do moving
    averages (:class:`evamm.EMAHook`), ``with_cp`` and ``compile``. Needs :class:`evamm.EVARunner`,
    which draws or loads the first weights before they are sharded::

        model_wrapper_cfg = dict(type='evamm.FSDP2')

    Autocast decides the precision of the computation, as without sharding; master weights,
    optimizer and checkpoints stay float32. With accumulation the gradients are reduced in every
    iteration, which keeps only the shards in memory.

    Args:
        module: Model on its device, with its first weights.
        param_dtype: ``'bfloat16'`` sends and keeps the whole weights of blocks in half the size,
            on CUDA only; rotary tables and activations are not touched. None: float32.
        reduce_dtype: Precision in which gradients are summed up.
        reshard_after_forward: Free whole blocks between forward and backward pass. False is faster
            and costs the memory of all weights.
        cpu_offload: Keep shards and optimizer state in the memory of the CPU.
        blocks: Names of the modules to shard one by one; None finds the blocks.
        sharded_checkpoints: Every process writes its part of a checkpoint, which becomes a folder
            instead of a file. It loads on any number of processes.

    Raises:
        ConfigError: Unknown precision, or no blocks found.
    """

    def __init__(
        self,
        module: nn.Module,
        param_dtype: str | None = None,
        reduce_dtype: str | None = 'float32',
        reshard_after_forward: bool = True,
        cpu_offload: bool = False,
        blocks: Sequence[str] | None = None,
        sharded_checkpoints: bool = False,
    ) -> None:
        super().__init__()
        self.sharded_checkpoints = sharded_checkpoints
        device_type = get_device()
        mesh = init_device_mesh(device_type, (torch.distributed.get_world_size(),))
        for value in [*module.parameters(), *module.buffers()]:
            broadcast(value.data)
        precision = {'reduce_dtype': _dtype(reduce_dtype, 'reduce_dtype')}
        param_dtype = _dtype(param_dtype, 'param_dtype')
        if device_type == 'cuda':
            precision['param_dtype'] = param_dtype
        options = {
            'mesh': mesh,
            'reshard_after_forward': reshard_after_forward,
            # Inputs keep their precision: a rotary table in bfloat16 would blur positions.
            'mp_policy': MixedPrecisionPolicy(cast_forward_inputs=False, **precision),
            'offload_policy': CPUOffloadPolicy() if cpu_offload else OffloadPolicy(),
        }
        scalars = {param for param in module.parameters() if param.ndim == 0}
        for param in scalars:
            if param.requires_grad:
                param.register_post_accumulate_grad_hook(_average_gradient)
        options['ignored_params'] = scalars
        for block in find_blocks(module, blocks).values():
            fully_shard(block, **options)
        # Embeddings, norms and heads are small and stay float32. The root is always freed, so that
        # its parameters are shards whenever a hook looks at them.
        options['mp_policy'] = MixedPrecisionPolicy(
            cast_forward_inputs=False, reduce_dtype=precision['reduce_dtype']
        )
        self.module = fully_shard(module, **{**options, 'reshard_after_forward': True})
        accept_whole_tensors(self.module)

    def forward(self, *args: object, **kwargs: object) -> object:
        """The model's."""
        return self.module(*args, **kwargs)

    def train_step(self, data: object, optim_wrapper: OptimWrapper) -> dict[str, torch.Tensor]:
        """The model's; gradients are reduced while the backward pass runs."""
        return self.module.train_step(data, optim_wrapper)

    def val_step(self, data: object) -> list:
        """The model's."""
        return self.module.val_step(data)

    def test_step(self, data: object) -> list:
        """The model's."""
        return self.module.test_step(data)
