"""LayerNorm as every EVA vision tower uses it."""

from functools import partial

from torch import nn

# 1e-6 everywhere in the vision towers; PyTorch's default of 1e-5 shifts features by 9e-6.
LayerNorm = partial(nn.LayerNorm, eps=1e-6)
