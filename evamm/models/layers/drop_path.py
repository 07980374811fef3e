"""Stochastic depth (paper 1603.09382), per sample."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes the residual branch of a whole sample and rescales the kept ones.

    Args:
        rate: Probability of dropping, in [0, 1).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f'drop_path_rate={rate} must lie in [0, 1).')
        self.rate = rate

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Drops samples of a branch.

        Args:
            x: Output of the branch, [B, ...].
            scale: Factors drawn before, one layer of :func:`draw_drop_path`. A compiler sees them
                as an input, while the rate would be a constant that makes every block another
                program. None draws them here.
        """
        if scale is not None:
            return x * scale.to(x.dtype)
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)  # [B, 1, ...]
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f'rate={self.rate:.4g}'


@lru_cache(maxsize=64)
def _keep_probabilities(rates: tuple[float, ...], device: torch.device) -> Tensor:
    # A tensor made under inference_mode could never be used in training.
    with torch.inference_mode(False):
        return 1.0 - torch.tensor(rates, device=device).view(-1, 1, 1)  # [L, 1, 1]


def draw_drop_path(rates: Sequence[float], batch: int, device: torch.device) -> Tensor:
    """Factors for both branches of all blocks in one draw: 0 or 1 / (1 - rate).

    Args:
        rates: Rate of each of the L blocks.
        batch: Number of samples B.
        device: Where to draw.

    Returns:
        Tensor of shape [L, 2, B, 1, 1].
    """
    keep = _keep_probabilities(tuple(rates), device)
    return torch.bernoulli(keep.expand(-1, 2, batch)).div_(keep)[..., None, None]
