"""torch.compile for the repeated blocks of a model."""

import contextlib
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import nn

from ..errors import ConfigError
from .blocks import find_blocks

_OPTIONS = ('mode', 'backend', 'dynamic', 'options')
# Image sizes x batch sizes x kinds of blocks x training and evaluation, before torch gives up.
_RECOMPILE_LIMIT = 64


def compile_blocks(
    model: nn.Module,
    *,
    blocks: Sequence[str] | None = None,
    fullgraph: bool = True,
    **options: object,
) -> int:
    """Compile each block of each transformer in place; equal blocks share one program.

    Compilation happens at the first call and takes as long as one block takes, whatever the depth.
    Names in the state dict, hooks and copies of the model stay as they are. It can be called before
    or after sharding, and blocks may be recomputed in the backward pass.

    Args:
        model: Model, wrapped for distributed training or not. Teachers that it holds as
            ``frozen_parts`` are compiled too.
        blocks: Names of the modules to compile; None finds them, see :func:`find_blocks`.
        fullgraph: Stop with an error if a block is not one graph.
        options: ``mode`` (``'reduce-overhead'`` for CUDA graphs), ``backend``, ``dynamic`` and
            ``options`` of :func:`torch.compile`.

    Returns:
        The number of blocks.

    Raises:
        ConfigError: An unknown option, or no block found.
    """
    unknown = set(options) - set(_OPTIONS)
    if unknown:
        raise ConfigError(
            f'compile: unknown key {", ".join(sorted(unknown))}; known are blocks, fullgraph, '
            f'{", ".join(_OPTIONS)}.'
        )
    found = list(find_blocks(model, blocks).values())
    for part in getattr(model, 'frozen_parts', ()):  # run in every step, but are no sub-modules
        with contextlib.suppress(ConfigError):  # a teacher without such blocks
            found += find_blocks(part).values()
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, _RECOMPILE_LIMIT)
    for block in found:
        block.compile(fullgraph=fullgraph, **options)
    print_log(
        f'{len(found)} blocks are compiled when they are called first, equal ones once.', 'current'
    )
    return len(found)
