"""What a call of evamm.DetInferencer chooses instead of the test_cfg of a config."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

import evamm
from evamm.apis.detection import SOFT_NMS

from .detectors import small_recipe


@pytest.fixture(scope='module')
def vitdet() -> evamm.DetInferencer:
    path = 'eva02_det/cascade_mask_rcnn_eva02_base_p16_1024_8xb16_coco.py'
    return small_recipe(path, ['one', 'two', 'three'])


def test_soft_nms_and_maskness_by_call(vitdet: evamm.DetInferencer) -> None:
    """The choices of a call are those of a config, and last for the call only."""
    cat = Path(__file__).resolve().parents[2] / 'demo/cat.JPEG'
    head = vitdet.model.roi_head
    before = head.test_cfg
    assert 'soft_nms' not in before

    def scores(**options: object) -> list[float]:
        (result,) = vitdet(cat, **options)['predictions']
        assert result['scores'] == sorted(result['scores'], reverse=True)
        return result['scores']

    plain = scores()
    soft = scores(soft_nms=True)
    masked = scores(maskness_thr=True)
    assert len(soft) > len(plain) > 3  # soft-NMS lowers scores where NMS takes boxes away
    assert max(masked) < 0.9 * max(plain)
    assert head.test_cfg is before
    assert scores(soft_nms=dict(iou_threshold=0.1)) != soft
    for changes, expected in (
        (dict(soft_nms={**SOFT_NMS, 'score_thr': 0.0}), soft),
        (dict(maskness_thr=0.5), masked),
    ):
        head.test_cfg = {**before, **changes}
        try:
            assert scores() == expected
            assert scores(soft_nms=False, maskness_thr=False) == plain
        finally:
            head.test_cfg = before


def test_only_samples_have_the_pixels_of_all_masks(vitdet: evamm.DetInferencer) -> None:
    """Thousands of masks of a large image fill the memory."""
    cat = Path(__file__).resolve().parents[2] / 'demo/cat.JPEG'
    formats, predict = [], vitdet.model.roi_head.predict_mask

    def watched(*args: object, **kwargs: object) -> object:
        results = predict(*args, **kwargs)
        formats.append(type(results[0].masks))
        return results

    options = dict(pred_score_thr=0.0, return_vis=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vitdet.model.roi_head, 'predict_mask', watched)
        coded = vitdet(cat, **options)
        plain = vitdet(cat, return_datasamples=True, **options)
    assert formats == [list, torch.Tensor]
    (result,), (sample,) = coded['predictions'], plain['predictions']
    decoded = np.stack([rle.decode(mask) for mask in result['masks']])
    np.testing.assert_array_equal(decoded, sample.pred_instances.masks.numpy())
    np.testing.assert_array_equal(*(out['visualization'][0] for out in (coded, plain)))


@pytest.mark.parametrize(
    ('sigmoid', 'soft_nms', 'expected'),
    [
        (False, True, 0.0),
        (True, True, None),  # LVIS: that of test_cfg stays
        (False, {'iou_threshold': 0.5}, None),
        (True, {'score_thr': 0.2}, 0.2),
    ],
)
def test_threshold_of_soft_nms(
    vitdet: evamm.DetInferencer,
    monkeypatch: pytest.MonkeyPatch,
    sigmoid: bool,
    soft_nms: bool | dict,
    expected: float | None,
) -> None:
    head = vitdet.model.roi_head
    monkeypatch.setattr(head.bbox_head[-1].loss_cls, 'use_sigmoid', sigmoid)
    with vitdet._test_settings(0.0, soft_nms, None, 'rle'):
        assert head.test_cfg.soft_nms.get('score_thr') == expected
        assert head.test_cfg.score_thr == 0.05


def test_progress_of_all_calls(
    vitdet: evamm.DetInferencer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(vitdet, 'show_progress', False)
    images = [np.zeros((8, 8, 3), np.uint8)] * 2
    vitdet(images, out_dir='')  # mmdet's word for no folder
    assert 'Inference' not in capsys.readouterr().err
    vitdet(images, progress=True)
    assert 'Inference' in capsys.readouterr().err


@pytest.mark.parametrize('options', [{}, {'soft_nms': True}, {'maskness_thr': True}])
def test_a_threshold_only_leaves_out(vitdet: evamm.DetInferencer, options: dict) -> None:
    """It is given to the model, which then has less to do, and changes nothing that stays."""
    cat = Path(__file__).resolve().parents[2] / 'demo/cat.JPEG'
    (everything,) = vitdet(cat, score_thr=0.0, **options)['predictions']
    thr = everything['scores'][5]
    (best,) = vitdet(cat, score_thr=thr, **options)['predictions']
    count = sum(score >= thr for score in everything['scores'])
    assert 5 < count < len(everything['scores'])
    for key in ('scores', 'bboxes', 'labels', 'masks', 'names'):
        assert best[key] == everything[key][:count]
