"""What LAMB and LARS share: norms of whole tensors, also of sharded ones, without host syncs."""

from collections.abc import Iterator, Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..errors import ConfigError
from ..strategies.sharding import local_part


def parameters_with_gradients(group: dict, optimizer: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Parameters of a group that have a gradient, with it.

    Raises:
        ConfigError: A gradient is sparse.
    """
    for param in group['params']:
        if param.grad is None:
            continue
        if param.grad.is_sparse:
            raise ConfigError(
                f'{optimizer} takes no sparse gradients; build the nn.Embedding of shape '
                f'{tuple(param.shape)} with sparse=False.'
            )
        yield param, param.grad


def local_parts(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What this process holds of each tensor."""
    return [local_part(tensor) for tensor in tensors]


def whole_norms(owners: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """2-norms of tensors, [len(values)] in float32 (float64 for float64).

    Args:
        owners: Parameters that the values belong to, of one kind (:func:`kind_of`); where they are
            sharded, the values are the parts of this process and the norm is that of the whole.
            All processes must call it together then.
        values: Tensors on one device with one precision.
    """
    dtype = torch.promote_types(values[0].dtype, torch.float32)
    norms = torch.stack(torch._foreach_norm(list(values), 2, dtype=dtype))
    if not isinstance(owners[0], DTensor):
        return norms
    squares = norms.square()
    all_reduce(squares, 'sum', owners[0].device_mesh.get_group())
    return squares.sqrt()


def kind_of(param: Tensor) -> tuple:
    """What parameters that are updated together have in common."""
    mesh = param.device_mesh if isinstance(param, DTensor) else None
    return param.device, param.dtype, mesh
