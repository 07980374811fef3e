"""The transformer block shared by every EVA model and task."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention import Attention
from .drop_path import DropPath
from .ffn import MLP, SwiGLU
from .norm import LayerNorm
from .window import window_partition, window_unpartition


class Block(nn.Module):
    """Attention and FFN with residual connections.

    Pre-norm: ``x + f(norm(x))``. Post-norm (EVA-02-CLIP-E): ``x + norm(f(x))``.

    Args:
        embed_dims: Width D.
        num_heads: Attention heads.
        ffn_hidden_dims: Hidden width of the FFN.
        ffn: ``'swiglu'`` or ``'mlp'``.
        ffn_norm: LayerNorm inside SwiGLU.
        attn_norm: LayerNorm inside attention.
        qkv_bias: ``'qv'``, ``'qkv'`` or ``'none'``.
        post_norm: Normalise after the sublayers.
        drop_path_rate: Stochastic depth of both sublayers.
        layer_scale: Initial value of the per-channel residual gains; None for no gains.
        window_size: Side of the attention window in tokens; 0 for global attention.
        rel_pos_grid: Grid that global attention stores tables of relative positions for; windows
            store theirs for one window. None for no tables.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        ffn_hidden_dims: int,
        *,
        ffn: str = 'swiglu',
        ffn_norm: bool = False,
        attn_norm: bool = False,
        qkv_bias: str = 'qv',
        post_norm: bool = False,
        drop_path_rate: float = 0.0,
        layer_scale: float | None = None,
        window_size: int = 0,
        rel_pos_grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.window_size = window_size
        self.norm1 = LayerNorm(embed_dims)
        if rel_pos_grid is not None and window_size:
            rel_pos_grid = (window_size, window_size)
        self.attn = Attention(
            embed_dims,
            num_heads,
            qkv_bias=qkv_bias,
            inner_norm=attn_norm,
            rel_pos_grid=rel_pos_grid,
        )
        self.norm2 = LayerNorm(embed_dims)
        if ffn == 'swiglu':
            self.mlp = SwiGLU(embed_dims, ffn_hidden_dims, norm=ffn_norm)
        else:
            self.mlp = MLP(embed_dims, ffn_hidden_dims)
        self.drop_path = DropPath(drop_path_rate)
        self.layer_scale = layer_scale
        if layer_scale is None:
            self.gamma_1 = self.gamma_2 = None
        else:
            self.gamma_1 = nn.Parameter(torch.full((embed_dims,), float(layer_scale)))
            self.gamma_2 = nn.Parameter(torch.full((embed_dims,), float(layer_scale)))

    def _attend(
        self,
        x: Tensor,
        rope: Tensor | None,
        grid: tuple[int, int] | None,
        queries: int | None,
        rel_pos_maps: Sequence[Tensor | None],
    ) -> Tensor:
        if not self.window_size:
            return self.attn(x, rope, queries, grid, rel_pos_maps)
        x, padded = window_partition(x, grid, self.window_size)
        x = self.attn(x, rope, grid=(self.window_size, self.window_size))
        return window_unpartition(x, grid, padded, self.window_size)

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        grid: tuple[int, int] | None = None,
        drop_scales: Tensor | None = None,
        queries: int | None = None,
        rel_pos_maps: Sequence[Tensor | None] = (None, None),
    ) -> Tensor:
        """Runs the block.

        Args:
            x: Tokens, [B, N, D].
            rope: Table for the tokens that attend to each other: the whole sequence, or one
                window for a windowed block.
            grid: (h, w) of the patch tokens; needed by windows and relative positions only.
            drop_scales: Stochastic depth drawn before for both branches, [2, B, 1, 1]; None draws
                it here.
            queries: Compute the output of this many leading tokens only; None for all. Not for
                windowed blocks.
            rel_pos_maps: See :class:`Attention`; not used by windowed blocks.

        Returns:
            Tensor of shape [B, N, D] or [B, queries, D].
        """
        attention_scale, ffn_scale = (None, None) if drop_scales is None else drop_scales.unbind()
        if self.post_norm:
            attended = self.norm1(self._attend(x, rope, grid, queries, rel_pos_maps))
        else:
            attended = self._attend(self.norm1(x), rope, grid, queries, rel_pos_maps)
        if self.gamma_1 is not None:
            attended = attended * self.gamma_1
        x = (x if queries is None else x[:, :queries]) + self.drop_path(attended, attention_scale)
        hidden = self.norm2(self.mlp(x)) if self.post_norm else self.mlp(self.norm2(x))
        if self.gamma_2 is not None:
            hidden = hidden * self.gamma_2
        return x + self.drop_path(hidden, ffn_scale)
