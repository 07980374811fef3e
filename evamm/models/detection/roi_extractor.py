"""Which level of a pyramid a box is looked at on."""

import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor

from evamm.registry import MODELS


@MODELS.register_module()
class ViTDetRoIExtractor(SingleRoIExtractor):
    """RoIAlign on the level that fits the size of the box.

    mmdet's ``SingleRoIExtractor`` with the official rule's tolerance of 1e-8, in units of 224
    pixels, in place of 1e-6 of 56 (``detectron2/modeling/poolers.py``).

    Args:
        output_size: Side of the pooled maps.
        out_channels: Channels of the levels.
        featmap_strides: Strides of the levels, each twice the one before.
    """

    def __init__(
        self,
        output_size: int,
        out_channels: int = 256,
        featmap_strides: tuple[int, ...] = (4, 8, 16, 32),
    ) -> None:
        super().__init__(
            dict(type='RoIAlign', output_size=output_size, sampling_ratio=0),
            out_channels,
            list(featmap_strides),
        )

    def map_roi_levels(self, rois: Tensor, num_levels: int) -> Tensor:
        """Levels [N], counted from 0, of boxes [N, 5] (image, corners)."""
        width_height = rois[:, 3:] - rois[:, 1:3]
        scale = width_height.prod(dim=1).sqrt() / 224
        levels = torch.floor(2 + torch.log2(scale + 1e-8))  # 224 pixels: stride 16
        return levels.clamp(0, num_levels - 1).long()
