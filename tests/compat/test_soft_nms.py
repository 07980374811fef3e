"""Soft suppression against its definition, box by box in double precision."""

import math

import pytest
import torch

from evamm.compat.mmcv_ext.soft_nms import softnms
from tests.compat.test_nms import iou, random_boxes

METHODS = {'naive': 0, 'linear': 1, 'gaussian': 2}


def penalty(overlap: float, method: str, threshold: float, sigma: float) -> float:
    if method == 'gaussian':
        return math.exp(-(overlap**2) / sigma)
    if overlap < threshold:
        return 1.0
    return 0.0 if method == 'naive' else 1.0 - overlap


def soften(
    boxes: torch.Tensor, scores: torch.Tensor, method: str, min_score: float, offset: int
) -> list[tuple[int, float]]:
    rows = boxes.double().tolist()
    left = dict(enumerate(scores.double().tolist()))
    result = []
    while left:
        best = max(left, key=left.get)
        result.append((best, left.pop(best)))
        for other in list(left):
            overlap = iou(rows[best], rows[other], offset)
            left[other] *= penalty(overlap, method, 0.3, 0.5)
            if left[other] < min_score:
                del left[other]
    return result


def run(boxes: torch.Tensor, scores: torch.Tensor, method: str, **kwargs: float) -> tuple:
    options = dict(iou_threshold=0.3, sigma=0.5, min_score=0.05, offset=0) | kwargs
    dets = boxes.new_full((len(boxes), 5), -7.0)
    kept = softnms(boxes, scores, dets, method=METHODS[method], **options)
    return kept, dets


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', METHODS)
def test_soft_nms_equals_the_sequential_rule(method: str, offset: int) -> None:
    boxes, scores = random_boxes(150, seed=3)
    kept, dets = run(boxes, scores, method, offset=offset)
    expected = soften(boxes, scores, method, 0.05, offset)
    assert 1 < len(expected) < 150
    assert kept.tolist() == [index for index, _ in expected]
    torch.testing.assert_close(dets[: len(kept), :4], boxes[kept])
    new_scores = torch.tensor([score for _, score in expected])
    torch.testing.assert_close(dets[: len(kept), 4], new_scores, rtol=1e-5, atol=1e-6)
    assert bool((dets[len(kept) :] == -7).all())  # rows beyond the kept ones are left alone


def test_soft_nms_breaks_ties_like_the_compiled_operator() -> None:
    # Choosing box 4 swaps it with box 0, which then stands behind 1, 2, 3.
    boxes = torch.tensor([[20.0 * i, 0, 20 * i + 10, 10] for i in range(5)])
    kept, _ = run(boxes, torch.tensor([0.5, 0.5, 0.5, 0.5, 0.9]), 'linear')
    assert kept.tolist() == [4, 1, 2, 3, 0]


def test_soft_nms_fills_dropped_places_with_the_last_boxes() -> None:
    # Box 0 drops 1 and 2, and 6 and then 5 take their places before 3 and 4 of the same score.
    boxes = torch.tensor(
        [[0.0, 0, 10, 10]] * 3 + [[20.0 * i, 0, 20 * i + 9, 10] for i in range(1, 5)]
    )
    kept, _ = run(boxes, torch.tensor([0.9, 0.8, 0.8, 0.5, 0.5, 0.5, 0.5]), 'linear')
    assert kept.tolist() == [0, 6, 5, 3, 4]


def test_soft_nms_without_boxes_and_without_area() -> None:
    kept, _ = run(torch.zeros(0, 4), torch.zeros(0), 'linear')
    assert kept.shape == (0,) and kept.dtype == torch.int64
    points = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5]])
    kept, dets = run(points, torch.tensor([0.4, 0.6]), 'gaussian')
    assert kept.tolist() == [1, 0]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.6, 0.4]))


def test_soft_nms_keeps_the_best_box_whatever_its_score() -> None:
    kept, dets = run(torch.tensor([[0.0, 0, 5, 5]]), torch.tensor([0.01]), 'linear')
    assert kept.tolist() == [0]
    assert dets[0, 4].item() == pytest.approx(0.01)


def test_soft_nms_through_mmcv_leaves_the_inputs_alone() -> None:
    from mmcv.ops import soft_nms

    import evamm.registry  # noqa: F401  installs the operators

    boxes, scores = random_boxes(40, seed=4)
    before = boxes.clone(), scores.clone()
    dets, kept = soft_nms(boxes, scores, iou_threshold=0.3, min_score=0.05, method='linear')
    assert kept.tolist() == [index for index, _ in soften(boxes, scores, 'linear', 0.05, 0)]
    assert dets.shape == (len(kept), 5)
    torch.testing.assert_close((boxes, scores), before)
