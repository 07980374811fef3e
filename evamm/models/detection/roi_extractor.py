"""Which level of a pyramid a box is looked at on."""

from collections.abc import Sequence

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
        finest_scale: Root of the area, in pixels, below twice of which a box is looked at on the
            first level. The official 56 belongs to a first stride of 4.
    """

    def __init__(
        self,
        output_size: int,
        out_channels: int = 256,
        featmap_strides: tuple[int, ...] = (4, 8, 16, 32),
        finest_scale: int = 56,
    ) -> None:
        super().__init__(
            dict(type='RoIAlign', output_size=output_size, sampling_ratio=0),
            out_channels,
            list(featmap_strides),
            finest_scale,
        )

    def map_roi_levels(self, rois: Tensor, num_levels: int) -> Tensor:
        """Levels [N], counted from 0, of boxes [N, 5] (image, corners)."""
        width_height = rois[:, 3:] - rois[:, 1:3]
        # Relative to the official unit: a box of 224 pixels has stride 16, two levels up.
        scale = width_height.prod(dim=1).sqrt() / (4 * self.finest_scale)
        levels = torch.floor(2 + torch.log2(scale + 1e-8))
        return levels.clamp(0, num_levels - 1).long()

    def forward(
        self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        """Pools [R, C, S, S] from levels [B, C, h, w] within boxes [R, 5] (image, corners).

        The sizes of all levels' shares are read from the device at once. Half precision is pooled
        in float32: in bfloat16 a corner at 1000 pixels would be up to 2 pixels off.

        Args:
            feats: Levels.
            rois: Boxes.
            roi_scale_factor: Pool from boxes that are this many times larger.
        """
        dtype = torch.promote_types(feats[0].dtype, torch.float32)
        rois = rois.to(dtype)
        pooled = feats[0].new_empty(len(rois), self.out_channels, *self.roi_layers[0].output_size)
        if not len(rois):
            return pooled
        levels = self.map_roi_levels(rois, len(feats))
        if roi_scale_factor is not None:
            rois = self.roi_rescale(rois, roi_scale_factor)
        order = levels.argsort(stable=True)
        numbers = torch.arange(len(feats), device=levels.device)
        counts = (levels[:, None] == numbers).sum(dim=0).tolist()
        shares = zip(self.roi_layers, feats, rois[order].split(counts))
        # mmcv's compiled operator knows no bfloat16, and takes any memory order for this one.
        parts = [
            layer(level.to(dtype).contiguous(), share)
            for layer, level, share in shares
            if len(share)
        ]
        return pooled.index_copy(0, order, torch.cat(parts).to(pooled.dtype))
