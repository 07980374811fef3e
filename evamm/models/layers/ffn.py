"""Feed-forward networks of the EVA trunks."""

import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear
from .norm import LayerNorm


class SwiGLU(nn.Module):
    """w3(norm(SiLU(w1 x) * (w2 x))), with w1 and w2 packed into one product.

    Args:
        embed_dims: Width D of input and output.
        hidden_dims: Hidden width H.
        norm: LayerNorm on the hidden product (EVA-02 B and L).
    """

    def __init__(self, embed_dims: int, hidden_dims: int, *, norm: bool = False) -> None:
        super().__init__()
        self.w12 = Linear(embed_dims, 2 * hidden_dims)  # rows 0..H-1 are the SiLU branch
        self.norm = LayerNorm(hidden_dims) if norm else nn.Identity()
        self.w3 = Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)  # [B, N, H] each
        return self.w3(self.norm(F.silu(gate) * value))  # [B, N, D]


class MLP(nn.Module):
    """fc2(GELU(fc1 x)) with the exact GELU (EVA-01, EVA-L, EVA-02-CLIP-E).

    Args:
        embed_dims: Width D of input and output.
        hidden_dims: Hidden width H.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.fc1 = Linear(embed_dims, hidden_dims)
        self.fc2 = Linear(hidden_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # [B, N, D]
