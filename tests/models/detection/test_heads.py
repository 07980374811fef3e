"""Box head, mask head, RoI extractor and data preprocessor by themselves."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')

from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.registry import DefaultScope
from pycocotools import mask as rle
from torch import nn

from evamm.models.detection import (
    SquarePadDetDataPreprocessor,
    ViTDetBBoxHead,
    ViTDetMaskHead,
    ViTDetRoIExtractor,
    mask_head,
)
from evamm.models.detection.mask_head import code_masks, mask_targets, paste_masks

from .tiny import batch, build, sample, tiny_cfg

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')


def in_mmdet(cls: type, *args: object, **kwargs: object) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        module = cls(*args, **kwargs)
    module.init_weights()
    return module


def test_norms_of_the_heads_have_the_official_eps() -> None:
    heads = in_mmdet(ViTDetBBoxHead, 3, 8, 8, 16), in_mmdet(ViTDetMaskHead, 3, 8, 8)
    norms = [part for head in heads for part in head.modules() if isinstance(part, nn.LayerNorm)]
    assert len(norms) == 8 and {norm.eps for norm in norms} == {1e-6}


def test_initial_weights() -> None:
    head = in_mmdet(ViTDetBBoxHead, 30, 16, 32, 256)
    mask = in_mmdet(ViTDetMaskHead, 30, 16, 32)
    wider = in_mmdet(ViTDetMaskHead, 30, 16, 32, predictor_std=0.1)
    fan_in = 32 * 49
    expected = {
        head.shared_fcs[0].weight: fan_in**-0.5,  # uniform in +- sqrt(3 / fan in)
        head.fc_cls.weight: 0.01,
        head.fc_reg.weight: 0.001,
        head.shared_convs[1].conv.weight: (2 / (32 * 9)) ** 0.5,
        mask.convs[1].conv.weight: (2 / (32 * 9)) ** 0.5,
        mask.upsample.weight: (2 / (32 * 4)) ** 0.5,
        mask.conv_logits.weight: 0.001,
        wider.conv_logits.weight: 0.1,
    }
    for weight, std in expected.items():
        assert weight.std().item() == pytest.approx(std, rel=0.1)
    assert head.shared_fcs[0].weight.abs().max().item() == pytest.approx((3 / fan_in) ** 0.5, 0.01)
    biases = [head.shared_fcs[0], head.fc_cls, head.fc_reg, mask.upsample, mask.conv_logits]
    assert all(layer.bias.eq(0).all() for layer in biases)
    rpn = build(tiny_cfg()).rpn_head
    for layer in (rpn.rpn_conv[0].conv, rpn.rpn_cls, rpn.rpn_reg):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.2)
        assert layer.bias.eq(0).all()


def test_maps_of_the_labels_are_those_of_all_classes() -> None:
    head = in_mmdet(ViTDetMaskHead, 5, 8, 8)
    nn.init.normal_(head.conv_logits.bias)
    pooled, labels = torch.randn(4, 8, 14, 14), torch.tensor([0, 4, 2, 4])
    found = head(pooled, labels)
    assert found.shape == (4, 28, 28)
    torch.testing.assert_close(found, head(pooled)[torch.arange(4), labels])


def test_levels_of_boxes() -> None:
    sides = torch.tensor([10.0, 111.99, 112, 223.9, 224, 447, 448, 2000])
    rois = torch.zeros(len(sides), 5)
    rois[:, 3], rois[:, 4] = sides * 2, sides / 2  # the square root of the area counts
    extractor = ViTDetRoIExtractor(7, out_channels=4)
    assert extractor.map_roi_levels(rois, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    half = ViTDetRoIExtractor(7, out_channels=4, featmap_strides=(2, 4, 8, 16), finest_scale=28)
    assert half.map_roi_levels(rois / 2, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    rois[:, 3:] = torch.tensor([111.99999, 111.99999])  # mmdet's tolerance makes this level 1
    assert extractor.map_roi_levels(rois, 4).tolist() == [0] * len(sides)


def test_pooling_is_mmdet_s_on_every_level() -> None:
    from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

    layer = dict(type='RoIAlign', output_size=7, sampling_ratio=0)
    extractors = ViTDetRoIExtractor(7, 4), SingleRoIExtractor(layer, 4, [4, 8, 16, 32])
    rois = torch.rand(40, 5) * 100
    rois[:, 3:] = rois[:, 1:3] + torch.rand(40, 2) * torch.logspace(1, 3, 40)[:, None]
    rois[:, 0] = torch.randint(0, 2, (40,))
    assert set(extractors[0].map_roi_levels(rois, 4).tolist()) == {0, 1, 2, 3}
    levels = [torch.randn(2, 4, 512 // stride, 512 // stride) for stride in (4, 8, 16, 32)]
    results, grads = [], []
    for extractor in extractors:
        inputs = [level.clone().requires_grad_() for level in levels]
        results.append(extractor(inputs, rois))
        (results[-1] ** 2).sum().backward()
        grads.append([level.grad for level in inputs])
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*grads)
    larger = [extractor(levels, rois, roi_scale_factor=1.5) for extractor in extractors]
    torch.testing.assert_close(*larger)
    assert not torch.equal(larger[0], results[0])
    assert extractors[0](levels, rois[:0]).shape == (0, 4, 7, 7)


def test_boxes_are_not_rounded_to_the_precision_of_the_maps() -> None:
    extractor = ViTDetRoIExtractor(7, out_channels=4)
    levels = [torch.randn(1, 4, 1024 // stride, 1024 // stride) for stride in (4, 8, 16, 32)]
    levels = [level.bfloat16().to(memory_format=torch.channels_last) for level in levels]
    rois = torch.tensor([[0, 901.3, 777.7, 935.2, 805.1], [0, 513.4, 601.9, 893.1, 994.6]])
    expected = extractor([level.float() for level in levels], rois)
    seen = []
    for layer in extractor.roi_layers:
        layer.register_forward_pre_hook(lambda layer, args: seen.append(args[0].is_contiguous()))
    found = extractor(levels, rois)
    assert found.dtype == torch.bfloat16 and seen == [True, True]
    torch.testing.assert_close(found, expected.bfloat16())


def test_polygons_are_drawn_within_the_box() -> None:
    square = np.array([10.0, 10, 20, 10, 20, 20, 10, 20])
    masks = PolygonMasks([[square + 5], [square]], 40, 40)
    boxes = torch.tensor([[10.0, 10, 30, 20], [9.96, 10, 10.01, 20], [10, 10, 20, 20]])
    found = mask_targets(masks, boxes, torch.tensor([1, 1, 0]), 28)
    assert found.dtype == torch.bool and found.shape == (3, 28, 28)
    assert found[0, :, :14].all() and not found[0, :, 14:].any()
    # 0.05 pixels wide: drawn as if it were 0.1 wide, of which the polygon leaves out 0.04.
    assert found[1, :, 12:].all() and not found[1, :, :11].any()
    assert found[2, 14:, 14:].all() and int(found[2].sum()) == 14 * 14


def test_bitmaps_are_averaged_within_the_box() -> None:
    bitmap = np.zeros((2, 40, 40), dtype=np.uint8)
    bitmap[1, 10:20, 10:20] = 1
    boxes, index = torch.tensor([[10.0, 10, 30, 20], [0, 0, 40, 40]]), torch.tensor([1, 0])
    found = mask_targets(BitmapMasks(bitmap, 40, 40), boxes, index, 28)
    assert found[0, :, :14].all() and not found[0, :, 15:].any() and not found[1].any()
    expected = BitmapMasks(bitmap, 40, 40).crop_and_resize(boxes.numpy(), (28, 28), index.numpy())
    assert (found.numpy() == expected.masks).all()


def test_few_bitmaps_become_numbers_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    masks = BitmapMasks((rng.random((9, 30, 40)) < 0.5).astype(np.uint8), 30, 40)
    corners = torch.rand(20, 2) * 15
    boxes = torch.cat((corners, corners + 5 + torch.rand(20, 2) * 15), dim=1)
    index = torch.randint(0, 9, (20,))
    index[index == 4] = 5
    expected = mask_targets(masks, boxes, index, 14)
    counts, align = [], mask_head.roi_align

    def watched(bitmaps: torch.Tensor, *args: object) -> torch.Tensor:
        counts.append(len(bitmaps))
        return align(bitmaps, *args)

    monkeypatch.setattr(mask_head, 'roi_align', watched)
    monkeypatch.setattr(mask_head, '_PASTE_PIXELS', 2 * 30 * 40)
    assert torch.equal(mask_targets(masks, boxes, index, 14), expected)
    assert max(counts) == 2 and sum(counts) == len(index.unique())


@pytest.mark.parametrize('kind', [BitmapMasks, PolygonMasks])
def test_no_boxes_no_masks(kind: type) -> None:
    masks = kind([], 20, 20)
    found = mask_targets(masks, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 28)
    assert found.shape == (0, 28, 28)


def test_masks_are_pasted_where_the_boxes_are() -> None:
    masks = torch.full((3, 28, 28), 0.5)  # from the threshold on a pixel counts
    masks[1, :, :14] = 0.4
    boxes = torch.tensor([[2.0, 3, 10, 9], [0, 0, 8, 8], [-5, -5, -1, -1]])
    found = paste_masks(masks, boxes, (12, 16), 0.5)
    expected = torch.zeros(3, 12, 16, dtype=torch.bool)
    expected[0, 3:9, 2:10] = True
    expected[1, :8, 4:8] = True
    assert torch.equal(found, expected)
    assert paste_masks(masks[:0], boxes[:0], (12, 16), 0.5).shape == (0, 12, 16)


@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=CUDA)])
def test_coded_masks_are_the_pasted_ones_but_never_all_at_once(device, monkeypatch) -> None:
    masks = torch.rand(5, 28, 28, device=device)
    boxes = torch.tensor(
        [[2.0, 3, 10, 9], [0, 0, 16, 12], [-5, -5, -1, -1], [1.5, 0, 9, 11.2], [3, 3, 5, 4]],
        device=device,
    )
    expected = paste_masks(masks, boxes, (12, 16), 0.5)
    paste, seen = mask_head._paste, []

    def watched(empty: torch.Tensor, *args: object) -> None:
        seen.append(empty.numel())
        paste(empty, *args)

    monkeypatch.setattr(mask_head, '_paste', watched)
    monkeypatch.setattr(mask_head, '_PASTE_PIXELS', 2 * 12 * 16)
    codes = code_masks(masks, boxes, (12, 16), 0.5)
    assert max(seen) <= 2 * 12 * 16 and sum(seen) == expected.numel()
    assert json.loads(json.dumps(codes)) == codes
    decoded = np.stack([rle.decode(code) for code in codes])
    assert (decoded == expected.cpu().numpy()).all()
    assert code_masks(masks[:0], boxes[:0], (12, 16), 0.5) == []


def test_every_image_becomes_the_same_square() -> None:
    preprocessor = SquarePadDetDataPreprocessor(pad_size=64)
    data = batch(sample([], [], (20, 64)), sample([], [], (48, 30)))
    pixel = data['inputs'][0][:, 5, 6].float().flip(0)  # BGR in the pipeline, RGB in the network
    found = preprocessor(data, False)
    assert found['inputs'].shape == (2, 3, 64, 64)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    torch.testing.assert_close(found['inputs'][0, :, 5, 6], (pixel - mean) / std)
    assert found['inputs'][0, :, 20:].eq(0).all() and found['inputs'][1, :, :, 30:].eq(0).all()
    for sampled, shape in zip(found['data_samples'], [(20, 64), (48, 30)]):
        assert sampled.img_shape == shape and sampled.pad_shape == (64, 64)


def test_a_larger_image_makes_a_larger_square() -> None:
    """Of whole patches: the trunk refuses others."""
    cfg = tiny_cfg(size=64)
    model = build(cfg)
    large, small = batch(sample([], [], (20, 100))), batch(sample([], [], (20, 30)))
    for data, side in ((large, 128), (small, 64)):
        images = model.data_preprocessor(data, False)['inputs']
        assert images.shape[2:] == (side, side)
        levels = model.extract_feat(images)
        assert [level.shape[-1] for level in levels] == [side // s for s in (4, 8, 16, 32, 64)]
    preprocessor = SquarePadDetDataPreprocessor(pad_size=40, size_divisor=14)
    for side, square in ((40, 40), (41, 42), (42, 42), (43, 56)):
        data = batch(sample([], [], (20, side)))
        assert preprocessor(data, False)['inputs'].shape[2:] == (square, square)
    for key in ('pad_size', 'size_divisor'):
        with pytest.raises(ValueError, match=f'{key}=0'):
            SquarePadDetDataPreprocessor(**{'pad_size': 64, key: 0})
