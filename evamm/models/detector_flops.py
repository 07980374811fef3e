"""Arithmetic of the ViTDet detectors, from the numbers of their parts."""

from torch import nn

PROPOSALS, DETECTIONS = 1000, 100


def count_pyramid_macs(dims: int, grid: int, channels: int = 256) -> int:
    """Multiply-accumulates of :class:`evamm.SimpleFeaturePyramid` for one image.

    Args:
        dims: Width of the trunk.
        grid: Side of the trunk's map.
        channels: Of the levels.
    """
    places = grid**2
    half, quarter = dims // 2, dims // 4
    resize = 2 * 4 * places * dims * half + 4 * (4 * places) * half * quarter
    lateral = channels * (
        16 * places * quarter + 4 * places * half + places * dims + (grid // 2) ** 2 * dims
    )
    output = 9 * channels**2 * (21 * places + (grid // 2) ** 2)
    return resize + lateral + output


def count_rpn_macs(grid: int, channels: int = 256, convs: int = 2, anchors: int = 3) -> int:
    """Multiply-accumulates of the proposal head on five levels of one image."""
    sides = (4 * grid, 2 * grid, grid, grid // 2, -(-(grid // 2) // 2))
    place = convs * 9 * channels**2 + channels * 5 * anchors
    return sum(side**2 for side in sides) * place


def count_box_head_macs(num_classes: int, channels: int = 256, hidden: int = 1024) -> int:
    """Multiply-accumulates of one stage's box head for one box."""
    pooled = 7 * 7
    return (
        4 * pooled * 9 * channels**2 + pooled * channels * hidden + hidden * (num_classes + 1 + 4)
    )


def count_mask_head_macs(num_classes: int, channels: int = 256) -> int:
    """Multiply-accumulates of the mask head for one box."""
    pooled = 14 * 14
    upsample = 4 * pooled * channels**2
    return 4 * pooled * 9 * channels**2 + upsample + 4 * pooled * channels * num_classes


def count_detector_macs(
    model: nn.Module,
    img_size: int,
    *,
    proposals: int = PROPOSALS,
    detections: int = DETECTIONS,
) -> dict[str, int]:
    """Multiply-accumulates of all matrix products for one square image, part by part.

    Resampling (RoIAlign) and suppression are not counted.

    Args:
        model: Detector with an :class:`evamm.EVAViT`, built anywhere.
        img_size: Side of the padded image in pixels.
        proposals: Boxes that every stage of the cascade looks at.
        detections: Boxes that the mask head looks at.

    Returns:
        ``trunk``, ``pyramid``, ``rpn``, ``boxes``, ``masks``.
    """
    grid = img_size // model.backbone.patch_size
    channels, classes = model.neck.out_channels, model.roi_head.num_classes
    stages = len(model.roi_head.bbox_head)
    return {
        'trunk': model.backbone.count_macs((1, 3, img_size, img_size)),
        'pyramid': count_pyramid_macs(model.neck.in_channels, grid, channels),
        'rpn': count_rpn_macs(grid, channels),
        'boxes': stages * proposals * count_box_head_macs(classes, channels),
        'masks': detections * count_mask_head_macs(classes, channels)
        if model.roi_head.with_mask
        else 0,
    }
