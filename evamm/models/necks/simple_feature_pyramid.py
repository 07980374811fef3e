"""Five levels from the single map of a plain vision transformer (ViTDet)."""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from evamm.registry import MODELS

from ..layers import LayerNorm2d

MODELS.register_module(module=LayerNorm2d)


def _conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=LayerNorm2d(out_channels)))


class _Level(nn.Module):
    """One level: resize, 1x1 convolution, 3x3 convolution, each followed by a LayerNorm."""

    def __init__(self, in_channels: int, out_channels: int, resize: Sequence[nn.Module]) -> None:
        super().__init__()
        self.resize = nn.Sequential(*resize)
        self.lateral = _conv(in_channels, out_channels, 1)
        self.output = _conv(out_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.lateral(self.resize(x)))


def _deconv(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps at 4, 2, 1, 1/2 and 1/4 of the resolution of a trunk's map.

    With patches of 16 pixels the strides are 4, 8, 16, 32 and 64. Every level is made from the same
    map, without a top-down path (paper 2203.16527, section 3). All weights start as PyTorch draws
    them. Official: ``EVA-02/det/detectron2/modeling/backbone/vit.py``.

    Args:
        in_channels: Channels D of the trunk's map; a multiple of 4.
        out_channels: Channels of every level.
        init_cfg: mmengine's.

    Raises:
        ValueError: If ``in_channels`` cannot be divided by 4.
    """

    def __init__(
        self, in_channels: int, out_channels: int = 256, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        if in_channels < 4 or in_channels % 4:
            raise ValueError(f'in_channels={in_channels} must be a positive multiple of 4.')
        self.in_channels, self.out_channels = in_channels, out_channels
        half, quarter = in_channels // 2, in_channels // 4
        fourfold = (
            _deconv(in_channels, half),
            LayerNorm2d(half),
            nn.GELU(),
            _deconv(half, quarter),
        )
        self.levels = nn.ModuleList(
            (
                _Level(quarter, out_channels, fourfold),
                _Level(half, out_channels, (_deconv(in_channels, half),)),
                _Level(in_channels, out_channels, ()),
                _Level(in_channels, out_channels, (nn.MaxPool2d(2, stride=2),)),
            )
        )

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Builds the pyramid.

        Args:
            inputs: Output of the trunk: one map [B, D, h, w], alone or in a sequence.

        Returns:
            Five contiguous maps [B, out_channels, h', w'] with h' = 4h, 2h, h, h // 2 and
            (h // 2 + 1) // 2.

        Raises:
            ValueError: If there is more than one map.
        """
        if not isinstance(inputs, Tensor):
            if len(inputs) != 1:
                raise ValueError(
                    f'SimpleFeaturePyramid takes one map, got {len(inputs)}; give the trunk '
                    'out_indices=-1.'
                )
            (inputs,) = inputs
        # mmcv's compiled RoIAlign takes any memory order for this one, without a word.
        maps = [level(inputs).contiguous() for level in self.levels]
        return (*maps, F.max_pool2d(maps[-1], kernel_size=1, stride=2))
