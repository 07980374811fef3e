"""Soft-NMS and NMS by class."""

import pytest
import torch
from torch import Tensor

pytest.importorskip('mmdet')

from evamm.models.detection import nms as nms_module
from evamm.models.detection.detections import check_test_cfg, maskness
from evamm.models.detection.nms import class_wise_nms, shift_classes
from evamm.models.detection.soft_nms import soft_nms


def many_boxes() -> tuple[Tensor, Tensor, Tensor]:
    boxes = torch.rand(60, 4) * 60
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes[torch.randint(0, 60, (200,))]  # some of them equal
    return boxes, torch.rand(200) ** 3, torch.randint(0, 4, (200,))


@pytest.mark.parametrize('class_wise', [True, False])
@pytest.mark.parametrize('method', ['linear', 'gaussian'])
def test_it_is_mmcv_s(method: str, class_wise: bool) -> None:
    from mmcv.ops import soft_nms as mmcv_soft_nms

    boxes, scores, labels = many_boxes()
    options = dict(method=method, iou_threshold=0.6, sigma=0.4, min_score=2e-3)
    found, kept = soft_nms(boxes, scores, labels, class_wise=class_wise, **options)
    shifted = shift_classes(boxes, labels) if class_wise else boxes
    dets, expected = mmcv_soft_nms(shifted, scores, **options)
    assert len(kept) < 200 and kept.tolist() == expected.tolist()
    torch.testing.assert_close(found, dets[:, 4], rtol=1e-6, atol=1e-6)


def test_the_best_stays_whatever_its_score() -> None:
    boxes, scores, labels = many_boxes()
    found, kept = soft_nms(boxes, scores * 1e-5, labels)
    assert kept.tolist() == [int(scores.argmax())]
    assert found.tolist() == pytest.approx([float(scores.max()) * 1e-5])


def test_nothing_in_nothing_out() -> None:
    empty = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long)
    assert [len(part) for part in soft_nms(*empty)] == [0, 0]
    assert len(class_wise_nms(*empty, 0.5)) == 0


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match='naive'):
        soft_nms(torch.zeros(1, 4), torch.ones(1), torch.zeros(1).long(), method='naive')


def test_nms_leaves_other_classes_alone() -> None:
    box = torch.tensor([0.0, 0, 10, 10])
    boxes = torch.stack((box, box + 1, box + 1))
    scores, classes = torch.tensor([0.5, 0.9, 0.8]), torch.tensor([0, 0, 1])
    assert class_wise_nms(boxes, scores, classes, 0.5).tolist() == [1, 2]


def test_many_boxes_are_worked_off_class_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, _, classes = (part.repeat(6, *[1] * (part.ndim - 1)) for part in many_boxes())
    scores = torch.randperm(len(boxes)).float()
    found = class_wise_nms(boxes, scores, classes, 0.5)
    calls = []
    of_module = nms_module.nms
    monkeypatch.setattr(
        nms_module, 'nms', lambda *args: calls.append(len(args[0])) or of_module(*args)
    )
    again = class_wise_nms(boxes, scores, classes, 0.5)
    assert len(calls) == 4 and sum(calls) == len(boxes)
    shifted = of_module(shift_classes(boxes, classes), scores, 0.5)[1]
    assert found.tolist() == again.tolist() == shifted.tolist()


def test_maskness_is_the_mean_above_the_threshold() -> None:
    masks = torch.tensor([[[0.9, 0.7], [0.5, 0.1]], [[0.5, 0.4], [0.0, 0.2]]])
    assert maskness(masks, 0.5).tolist() == pytest.approx([0.8, 0.0])


@pytest.mark.parametrize(
    'settings',
    [
        {'score_thr': 2},
        {'score_thr': 'low'},
        {'maskness_thr': 2},
        {'maskness_thr': True},
        {'maskness_thr': 'high'},
        {'soft_nms': True},
        {'soft_nms': 'linear'},
        {'soft_nms': {'metod': 'linear'}},
        {'soft_nms': {'method': 'foo'}},
        {'mask_format': 'png'},
        {'score_thr': None},
        {'nms': None},
        {'nms': {'type': 'nms'}},
        {'nms': {'iou_threshold': 50}},
        {'max_per_img': None},
        {'max_per_img': 0.5},
    ],
)
def test_settings_of_the_test_that_cannot_be_used(settings):
    good = {'score_thr': 0.05, 'maskness_thr': 0.5, 'soft_nms': {'method': 'linear', 'sigma': 0.5}}
    check_test_cfg(good)
    check_test_cfg({**good, 'nms': None, 'max_per_img': None})  # soft-NMS asks for neither
    (key,) = settings
    if key in ('nms', 'max_per_img'):
        good = {'score_thr': 0.05, 'nms': {'iou_threshold': 0.5}, 'max_per_img': -1}
        check_test_cfg(good)
    with pytest.raises(ValueError, match=f'test_cfg.rcnn.{key}: expected .*, found'):
        check_test_cfg({**good, **settings})
