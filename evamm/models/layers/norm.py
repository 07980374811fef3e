"""LayerNorm as every EVA vision tower uses it."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

# 1e-6 everywhere in the vision towers; PyTorch's default of 1e-5 shifts features by 9e-6.
LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of a map, in the pyramid and the heads of a detector.

    A map whose channels lie next to each other in memory, as a transformer's do, is not copied.
    mmcv's ``norm_cfg`` passes its own eps of 1e-5 unless told otherwise: write ``eps=1e-6`` there.

    Args:
        num_channels: Channels C.
        eps: Added to the variance.
    """

    _abbr_ = 'ln'

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Normalises [B, C, H, W]; the result has its channels next to each other."""
        x = x.permute(0, 2, 3, 1)  # [B, H, W, C]
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)
