"""Ways to run one config on one device or many."""

from .blocks import find_blocks
from .compiling import compile_blocks
from .fsdp import FSDP2
from .sharding import is_sharded

__all__ = ['FSDP2', 'compile_blocks', 'find_blocks', 'is_sharded']
