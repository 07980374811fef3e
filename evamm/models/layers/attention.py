"""Multi-head self-attention of the EVA trunks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear, linear
from .norm import LayerNorm
from .relative_position import attend_with_positions, position_logits, position_vectors
from .rope import apply_rope
from .rotate_qkv import rotate_qkv


class Attention(nn.Module):
    """Self-attention with one packed QKV product and optional rotary positions.

    Args:
        embed_dims: Width D.
        num_heads: Number of heads h; each has d = D / h channels.
        qkv_bias: ``'qv'`` stores a bias for q and v only, as the official code (one on k would
            matter under RoPE only), ``'qkv'`` one for all three, ``'none'`` none.
        inner_norm: LayerNorm before the output projection (EVA-02-CLIP towers).
        rel_pos_grid: Grid that tables of decomposed relative positions are stored for (EVA-01's
            detector); None for no tables.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        *,
        qkv_bias: str = 'qv',
        inner_norm: bool = False,
        rel_pos_grid: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(embed_dims, 3 * embed_dims, bias=qkv_bias == 'qkv')
        if qkv_bias == 'qv':
            self.q_bias = nn.Parameter(torch.zeros(embed_dims))
            self.v_bias = nn.Parameter(torch.zeros(embed_dims))
        else:
            self.q_bias = self.v_bias = None
        self.norm = LayerNorm(embed_dims) if inner_norm else nn.Identity()
        self.proj = Linear(embed_dims, embed_dims)
        if rel_pos_grid is None:
            self.rel_pos_h = self.rel_pos_w = None
        else:
            head_dims = embed_dims // num_heads
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * rel_pos_grid[0] - 1, head_dims))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * rel_pos_grid[1] - 1, head_dims))

    def packed_bias(self) -> Tensor | None:
        """Bias of q, k and v together, [3 * D], or None; that of k is zero where none is stored."""
        if self.q_bias is None:
            return self.qkv.bias
        return torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))  # [3 * D]

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        queries: int | None = None,
        grid: tuple[int, int] | None = None,
        rel_pos_maps: Sequence[Tensor | None] = (None, None),
    ) -> Tensor:
        """Attends over all tokens.

        Args:
            x: Tokens, [B, N, D].
            rope: Table of :func:`rope_table` for these N tokens, [N, d/2, 2], or one for each
                sample, [B, N, d/2, 2]; None for no rotation.
            queries: Compute the output of this many leading tokens only; None for all. Not with
                relative positions.
            grid: (h, w) of the tokens; needed by relative positions only.
            rel_pos_maps: What brings the tables of relative positions to that grid, for height and
                width (see :func:`position_vectors`); None where they fit.

        Returns:
            Tensor of shape [B, N, D] or [B, queries, D].
        """
        q, k, v = self._project(x, rope) if queries is None else self._split(x, rope, queries)
        heads_first = (part.transpose(1, 2) for part in (q, k, v))  # [B, h, N, d] each
        if self.rel_pos_h is None:
            x = F.scaled_dot_product_attention(*heads_first)  # [B, h, N, d]
        else:
            rows = position_vectors(self.rel_pos_h, grid[0], rel_pos_maps[0])
            columns = position_vectors(self.rel_pos_w, grid[1], rel_pos_maps[1])
            x = attend_with_positions(*heads_first, *position_logits(q, rows, columns, grid))
        x = x.transpose(1, 2).flatten(2)  # [B, N, D]
        return self.proj(self.norm(x))

    def _project(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        qkv = linear(x, self.qkv.weight, self.packed_bias())  # [B, N, 3 * D]
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))  # [B, N, 3, h, d]
        return qkv.unbind(2) if rope is None else rotate_qkv(qkv, rope)  # [B, N, h, d] each

    def _split(self, x: Tensor, rope: Tensor | None, queries: int) -> tuple[Tensor, Tensor, Tensor]:
        dims, weight, bias = x.shape[-1], self.qkv.weight, self.packed_bias()
        q_bias, kv_bias = (None, None) if bias is None else (bias[:dims], bias[dims:])
        q = linear(x[:, :queries], weight[:dims], q_bias).unflatten(-1, (self.num_heads, -1))
        kv = linear(x, weight[dims:], kv_bias).unflatten(-1, (2, self.num_heads, -1))
        k, v = kv.unbind(2)  # [B, N, h, d] each
        if rope is not None:
            q, k = apply_rope(q, rope[..., :queries, :, :]), apply_rope(k, rope)
        return q, k, v
