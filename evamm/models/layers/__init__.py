"""Plain PyTorch layers of the EVA trunks. They know no registry and no config."""

from .attention import Attention
from .autocast import without_autocast
from .block import Block
from .drop_path import DropPath, draw_drop_path
from .ffn import MLP, SwiGLU
from .norm import LayerNorm, LayerNorm2d
from .patch_embed import PatchEmbed
from .rope import apply_rope, rope_table
from .scale_grad import scale_grad
from .window import window_partition, window_unpartition

__all__ = [
    'MLP',
    'Attention',
    'Block',
    'DropPath',
    'LayerNorm',
    'LayerNorm2d',
    'PatchEmbed',
    'SwiGLU',
    'apply_rope',
    'draw_drop_path',
    'rope_table',
    'scale_grad',
    'window_partition',
    'window_unpartition',
    'without_autocast',
]
