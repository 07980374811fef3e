"""Greedy suppression against its definition, box by box in double precision."""

import itertools

import pytest
import torch

from evamm.compat.mmcv_ext import nms as module
from evamm.compat.mmcv_ext.nms import nms, nms_match


def random_boxes(
    count: int, *, seed: int, spread: float = 60.0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * spread
    sizes = torch.rand(count, 2, generator=generator) * 30
    return torch.cat([corners, corners + sizes], dim=1), torch.rand(count, generator=generator)


def iou(first: list[float], second: list[float], offset: float) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0]) + offset
    height = min(first[3], second[3]) - max(first[1], second[1]) + offset
    inter = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (first, second)]
    union = sum(areas) - inter
    return inter / union if union else 0.0


def greedy(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, offset: float) -> list[int]:
    rows = boxes.double().tolist()
    kept = []
    for index in sorted(range(len(rows)), key=lambda i: -scores[i].item()):
        if all(iou(rows[index], rows[other], offset) <= threshold for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('offset', [0, 1])
def test_nms_equals_the_greedy_rule(threshold: float, offset: int) -> None:
    # More boxes than one block of the implementation, crowded: long chains of suppression
    boxes, scores = random_boxes(700, seed=0)
    kept = nms(boxes, scores, iou_threshold=threshold, offset=offset)
    assert kept.tolist() == greedy(boxes, scores, threshold, offset)


def test_nms_keeps_a_box_whose_only_rival_was_removed() -> None:
    # 0 removes 1, and 1 alone would remove 2.
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    assert nms(boxes, scores, iou_threshold=0.4, offset=0).tolist() == [0, 2]


@pytest.mark.parametrize('block', [1, 256])
def test_nms_removes_only_above_the_threshold(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, '_BLOCK', block)  # within a block, and between two
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # IoU is 0.5 exactly
    scores = torch.tensor([0.9, 0.8])
    assert nms(boxes, scores, iou_threshold=0.5, offset=0).tolist() == [0, 1]
    assert nms(boxes, scores, iou_threshold=0.49, offset=0).tolist() == [0]


def test_nms_keeps_the_order_of_equal_scores() -> None:
    boxes = torch.tensor([[20.0 * i, 0, 20 * i + 10, 10] for i in range(300)])
    assert nms(boxes, torch.ones(300), iou_threshold=0.5, offset=0).tolist() == list(range(300))


def test_nms_without_boxes_and_without_area() -> None:
    empty = nms(torch.zeros(0, 4), torch.zeros(0), iou_threshold=0.5, offset=0)
    assert empty.shape == (0,) and empty.dtype == torch.int64
    # Two identical points do not overlap: 0 / 0 is not larger than any threshold.
    points = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]])
    kept = nms(points, torch.tensor([0.1, 0.9, 0.5]), iou_threshold=0.5, offset=0)
    assert kept.tolist() == [1, 2, 0]


def test_nms_of_half_precision_is_computed_in_single() -> None:
    # IoU is 10 / 30 of boxes whose areas, 40000 * 2, no half can hold.
    boxes = torch.tensor([[0.0, 0, 40000, 2], [20000, 0, 60000, 2]], dtype=torch.float16)
    scores = torch.tensor([0.9, 0.8], dtype=torch.float16)
    assert nms(boxes, scores, iou_threshold=0.5, offset=0).tolist() == [0, 1]
    assert nms(boxes, scores, iou_threshold=0.3, offset=0).tolist() == [0]


def test_a_compiled_kernel_is_asked_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.compiled('nms', 'cpu') is None
    asked = []

    def kernel(*args: object) -> torch.Tensor:
        asked.append(args)
        return torch.tensor([1])

    monkeypatch.setattr(module, 'compiled', lambda *key: {('nms', 'cpu'): kernel}[key])
    boxes, scores = random_boxes(5, seed=0)
    assert nms(boxes.half(), scores.half(), iou_threshold=0.5, offset=0).tolist() == [1]
    ((found, found_scores, threshold),) = asked
    assert found.dtype == found_scores.dtype == torch.float32 and threshold == 0.5
    # It knows no offset.
    kept = nms(boxes, scores, iou_threshold=0.5, offset=1)
    assert len(asked) == 1 and kept.tolist() == greedy(boxes, scores, 0.5, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.9])
def test_nms_is_the_same_on_a_gpu(threshold: float) -> None:
    boxes, scores = random_boxes(2000, seed=3, spread=300.0)
    expected = nms(boxes, scores, iou_threshold=threshold, offset=0)
    assert nms(boxes.cuda(), scores.cuda(), threshold, 0).tolist() == expected.tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'compiled', lambda *key: None)
        assert nms(boxes.cuda(), scores.cuda(), threshold, 0).tolist() == expected.tolist()


@pytest.mark.parametrize('threshold', [0.1, 0.5])
def test_nms_match_groups_every_box_with_the_one_that_removes_it(threshold: float) -> None:
    boxes, scores = random_boxes(80, seed=1)
    groups = nms_match(torch.cat([boxes, scores[:, None]], dim=1), iou_threshold=threshold)

    rows = boxes.double().tolist()
    left = sorted(range(80), key=lambda i: -scores[i].item())
    expected = []
    while left:
        joins = [i for i in left[1:] if iou(rows[left[0]], rows[i], 0) >= threshold]
        expected.append([left[0], *joins])
        left = [i for i in left[1:] if i not in joins]
    assert groups == expected
    assert sorted(itertools.chain(*groups)) == list(range(80))


def test_batched_nms_of_mmcv_works_per_class() -> None:
    from mmcv.ops import batched_nms

    import evamm.registry  # noqa: F401  installs the operators

    boxes, scores = random_boxes(120, seed=2)
    labels = torch.arange(120) % 3
    dets, kept = batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=0.4))
    expected = []
    for label in range(3):
        members = torch.nonzero(labels == label).squeeze(1)
        inner = greedy(boxes[members], scores[members], 0.4, 0)
        expected += members[inner].tolist()
    assert sorted(kept.tolist()) == sorted(expected)
    torch.testing.assert_close(dets, torch.cat([boxes, scores[:, None]], dim=1)[kept])
    assert dets[:, 4].tolist() == sorted(dets[:, 4].tolist(), reverse=True)
