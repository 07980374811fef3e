"""Overlaps, deltas, and clipping boxes to an image."""

import math

import pytest
import torch

pytest.importorskip('mmdet')

from evamm.models.detection.boxes import BoxDeltaCoder, box_iou, clip_boxes, nonempty


def test_iou_of_known_boxes() -> None:
    first = torch.tensor([[0.0, 0, 4, 4], [1, 1, 1, 3]])
    second = torch.tensor([[2.0, 0, 6, 4], [4, 0, 8, 4], [0, 0, 4, 4], [1, 1, 1, 3]])
    expected = torch.tensor([[1 / 3, 0, 1, 0], [0, 0, 0, 0]])  # no area, no overlap
    torch.testing.assert_close(box_iou(first, second), expected)


def test_decoding_undoes_encoding() -> None:
    boxes = torch.rand(50, 4) * 40
    boxes[:, 2:] += boxes[:, :2] + 1
    others = boxes[torch.randperm(50)]
    coder = BoxDeltaCoder((10, 10, 5, 5))
    torch.testing.assert_close(coder.decode(boxes, coder.encode(boxes, others)), others)


def test_deltas_are_those_of_mmdet_between_equal_weights() -> None:
    from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder

    boxes, others = torch.rand(2, 20, 4) * 40
    boxes[:, 2:] += boxes[:, :2] + 1
    others[:, 2:] += others[:, :2] + 1
    mmdet = DeltaXYWHBBoxCoder(target_stds=(0.1, 0.1, 0.2, 0.2))
    found = BoxDeltaCoder((10, 10, 5, 5)).encode(boxes, others)
    torch.testing.assert_close(found, mmdet.encode(boxes, others), rtol=1e-5, atol=1e-5)


def test_growth_is_limited_and_shrinking_is_not() -> None:
    box = torch.tensor([[0.0, 0, 16, 16]])
    grown, shrunk = (
        BoxDeltaCoder().decode(box, torch.tensor([[0, 0, value, value]])) for value in (9.0, -9.0)
    )
    assert (grown[0, 2:] - grown[0, :2]).tolist() == pytest.approx([1000, 1000])
    width = float(shrunk[0, 2] - shrunk[0, 0])
    assert width == pytest.approx(16 * math.exp(-9), rel=1e-3)


def test_decoding_computes_in_float32() -> None:
    box, deltas = torch.tensor([[100.0, 100, 900, 900]]), torch.full((1, 4), 0.01)
    found = BoxDeltaCoder().decode(box, deltas.bfloat16())
    assert found.dtype == torch.float32
    expected = BoxDeltaCoder().decode(box, deltas.bfloat16().float())
    torch.testing.assert_close(found, expected)


def test_clipping_takes_height_and_width() -> None:
    boxes = torch.tensor([[-1.0, -2, 90, 90], [3, 4, 5, 6]])
    found = clip_boxes(boxes, torch.tensor([40, 60]))
    assert found.tolist() == [[0, 0, 60, 40], [3, 4, 5, 6]]
    assert BoxDeltaCoder().decode(boxes, torch.zeros(2, 4), (40, 60))[0].tolist() == [0, 0, 60, 40]


def test_empty_boxes() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 0, 2], [0, 2, 2, 2], [3, 0, 2, 2]])
    assert nonempty(boxes).tolist() == [True, False, False, False]
    assert not nonempty(boxes, min_size=2).any()
