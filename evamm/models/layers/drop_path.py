"""Stochastic depth (paper 1603.09382), per sample."""

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

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0.0 or not self.training:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)  # [B, 1, ...]
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f'rate={self.rate:.4g}'
