"""The transformer block of CLIP's text towers."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear, linear


class CausalAttention(nn.Module):
    """Self-attention in which a token sees itself and those before it.

    Args:
        width: Width W.
        num_heads: Number of heads h.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, last: Tensor | None = None) -> Tensor:
        """Attends.

        Args:
            x: Tokens, [B, T, W].
            last: Index of the only token of each sample whose output is wanted, [B].

        Returns:
            Tensor of shape [B, T, W], or [B, W] for one token.
        """
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if last is None:
            qkv = linear(x, weight, bias).unflatten(-1, (3, self.num_heads, -1))
            q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # [B, h, T, d] each
            x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out_proj(x.transpose(1, 2).flatten(2))
        width = x.shape[-1]
        q = linear(take_tokens(x, last), weight[:width], bias[:width])  # [B, W]
        q = q.unflatten(-1, (self.num_heads, 1, -1))  # [B, h, 1, d]
        kv = linear(x, weight[width:], bias[width:]).unflatten(-1, (2, self.num_heads, -1))
        k, v = (part.transpose(1, 2) for part in kv.unbind(2))  # [B, h, T, d] each
        seen = torch.arange(x.shape[1], device=x.device) <= last[:, None]  # [B, T]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
        return self.out_proj(x.flatten(1))


class TextBlock(nn.Module):
    """Pre-norm attention and MLP with the exact GELU; parameter names are OpenAI's.

    Args:
        width: Width W.
        num_heads: Attention heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)  # eps 1e-5, unlike the vision towers
        self.attn = CausalAttention(width, num_heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=Linear(width, 4 * width), gelu=nn.GELU(), c_proj=Linear(4 * width, width)
            )
        )

    def forward(self, x: Tensor, last: Tensor | None = None) -> Tensor:
        """Runs the block.

        Args:
            x: Tokens, [B, T, W].
            last: Index of the only token of each sample whose output is wanted, [B].

        Returns:
            Tensor of shape [B, T, W], or [B, W] for one token.
        """
        attended = self.attn(self.ln_1(x), last)
        x = attended + (x if last is None else take_tokens(x, last))
        return x + self.mlp(self.ln_2(x))


def take_tokens(x: Tensor, index: Tensor) -> Tensor:
    """One token of every sample.

    Args:
        x: Tokens, [B, T, W].
        index: Which one, [B].

    Returns:
        Tensor of shape [B, W].
    """
    return x[torch.arange(x.shape[0], device=x.device), index]
