"""The formulas against torch's counter, at full size and without memory."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evamm.models.detector_flops import (
    count_box_head_macs,
    count_detector_macs,
    count_mask_head_macs,
    count_pyramid_macs,
    count_rpn_macs,
)


def count(module, *inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() // 2


def levels(grid):
    sides = (4 * grid, 2 * grid, grid, grid // 2, -(-(grid // 2) // 2))
    return [torch.empty(1, 256, side, side, device='meta') for side in sides]


@pytest.mark.parametrize(('dims', 'grid'), [(768, 64), (1408, 96), (64, 14)])
def test_pyramid_and_proposals(dims, grid):
    from evamm.models.detection import ViTDetRPNHead
    from evamm.models.necks import SimpleFeaturePyramid

    with torch.device('meta'):
        neck, head = SimpleFeaturePyramid(dims), ViTDetRPNHead(autocast=True)
    assert count_pyramid_macs(dims, grid) == count(
        neck, torch.empty(1, dims, grid, grid, device='meta')
    )
    assert count_rpn_macs(grid) == count(head, levels(grid))


@pytest.mark.parametrize('classes', [80, 1203])
def test_heads(classes):
    from evamm.models.detection import ViTDetBBoxHead, ViTDetMaskHead

    with torch.device('meta'):
        box, mask = ViTDetBBoxHead(classes), ViTDetMaskHead(classes)
        boxes, masks = torch.empty(3, 256, 7, 7), torch.empty(2, 256, 14, 14)
    assert 3 * count_box_head_macs(classes) == count(box, boxes)
    assert 2 * count_mask_head_macs(classes) == count(mask, masks)


def test_a_detector_is_the_sum_of_its_parts():
    from types import SimpleNamespace

    trunk = SimpleNamespace(patch_size=16, count_macs=lambda shape: shape[2] * shape[3])
    heads = SimpleNamespace(num_classes=80, bbox_head=[0, 0, 0], with_mask=True)
    neck = SimpleNamespace(in_channels=768, out_channels=256)
    model = SimpleNamespace(backbone=trunk, neck=neck, roi_head=heads)
    parts = count_detector_macs(model, 1024)
    # Counted once by torch's counter for EVA-02-B at 1024 pixels.
    assert parts == dict(
        trunk=1024**2,
        pyramid=71_672_266_752,
        rpn=103_313_768_448,
        boxes=385_612_800_000,
        masks=52_985_856_000,
    )
    heads.with_mask = False
    assert count_detector_macs(model, 1024)['masks'] == 0
