"""Random initialisation of a trunk, as in the official code.

Two situations need two rules: a model that is trained from a released checkpoint or from scratch
on labels (``modeling_finetune.py``), and a model at the start of masked image modelling
(``modeling_pretrain.py``, ``modeling_mae_pretrain.py``).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..layers import Attention, Block
from ..variants import EVAArch


def _init_linears(trunk: nn.Module, init: Callable[[Tensor], object]) -> None:
    for module in trunk.modules():
        if isinstance(module, nn.Linear):
            init(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(module, Attention):
            for start in (module.q_bias, module.v_bias, module.rel_pos_h, module.rel_pos_w):
                if start is not None:
                    nn.init.zeros_(start)
        elif isinstance(module, Block) and module.gamma_1 is not None:
            nn.init.constant_(module.gamma_1, module.layer_scale)
            nn.init.constant_(module.gamma_2, module.layer_scale)


def _rescale_residuals(trunk: nn.Module) -> None:
    """Divides the last weight of both sublayers of block i by sqrt(2 (i + 1))."""
    for index, block in enumerate(trunk.blocks, start=1):
        last = block.mlp.w3 if hasattr(block.mlp, 'w3') else block.mlp.fc2
        block.attn.proj.weight.div_(math.sqrt(2 * index))
        last.weight.div_(math.sqrt(2 * index))


def _tokens(trunk: nn.Module) -> list[nn.Parameter]:
    names = ('pos_embed', 'cls_token', 'mask_token')
    return [getattr(trunk, name) for name in names if getattr(trunk, name, None) is not None]


@torch.no_grad()
def init_finetune(trunk: nn.Module, arch: EVAArch) -> None:
    """Truncated normal of 0.02 with depth rescaling; the convolution keeps PyTorch's default."""
    for token in _tokens(trunk):
        nn.init.trunc_normal_(token, std=0.02)
    trunk.patch_embed.proj.reset_parameters()
    _init_linears(trunk, lambda weight: nn.init.trunc_normal_(weight, std=0.02))
    _rescale_residuals(trunk)


@torch.no_grad()
def init_pretrain(trunk: nn.Module, arch: EVAArch) -> None:
    """Initialisation at the start of MIM; which rule follows from the architecture.

    EVA-02 (SwiGLU): Xavier normal. EVA-L (bias on q, k and v): Xavier uniform of MAE. EVA-01:
    normal of 0.015 cut at one standard deviation, with depth rescaling.
    """
    conv = trunk.patch_embed.proj
    if arch.ffn == 'swiglu':
        for token in _tokens(trunk):
            nn.init.trunc_normal_(token, std=0.02, a=-0.02, b=0.02)
        conv.reset_parameters()
        nn.init.xavier_uniform_(conv.weight.flatten(1))
        _init_linears(trunk, nn.init.xavier_normal_)
        if arch.ffn_norm:
            _init_split_projections(trunk, arch)
    elif arch.qkv_bias == 'qkv':
        for token in _tokens(trunk):
            if token is not trunk.pos_embed:
                nn.init.normal_(token, std=0.02)
        trunk.pos_embed.copy_(sincos_pos_embed(arch.embed_dims, *trunk.pos_grid_size))
        conv.reset_parameters()
        nn.init.xavier_uniform_(conv.weight.flatten(1))
        _init_linears(trunk, nn.init.xavier_uniform_)
    else:
        std = 0.015

        def cut_normal(weight: Tensor) -> None:
            nn.init.trunc_normal_(weight, std=std, a=-std, b=std)

        for token in _tokens(trunk):
            cut_normal(token)
        cut_normal(conv.weight)
        nn.init.zeros_(conv.bias)
        _init_linears(trunk, cut_normal)
        _rescale_residuals(trunk)
        if arch.post_norm:
            for block in trunk.blocks:
                nn.init.zeros_(block.norm1.weight)
                nn.init.zeros_(block.norm2.weight)


def _init_split_projections(trunk: nn.Module, arch: EVAArch) -> None:
    """EVA-02 B and L were trained with separate q, k, v and w1, w2, so Xavier sees each alone.

    Models with sub-LN also multiply v, the output projection and the FFN by sqrt(ln(2 depth)).
    """
    gain = math.sqrt(math.log(2 * arch.depth))
    for block in trunk.blocks:
        _, _, value = parts = block.attn.qkv.weight.chunk(3)
        for part in (*parts, *block.mlp.w12.weight.chunk(2)):
            nn.init.xavier_normal_(part)
        for weight in (value, block.attn.proj.weight, block.mlp.w12.weight, block.mlp.w3.weight):
            weight.mul_(gain)


def sincos_pos_embed(embed_dims: int, height: int, width: int) -> Tensor:
    """Fixed sine-cosine position embedding of MAE with a zero row for the class token.

    The first half of the channels encodes the column, the second the row
    (``EVA-01/eva/modeling_mae_pretrain.py``).

    Returns:
        Tensor of shape [1, 1 + height * width, embed_dims].
    """
    quarter = embed_dims // 4
    freqs = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, cols = torch.meshgrid(
        torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing='ij',
    )
    parts = []
    for coords in (cols, rows):
        angles = torch.outer(coords.flatten(), freqs)  # [h * w, D/4]
        parts += [angles.sin(), angles.cos()]
    table = torch.cat(parts, dim=1).float()  # [h * w, D]
    return torch.cat((table.new_zeros(1, embed_dims), table))[None]  # [1, 1 + h * w, D]
