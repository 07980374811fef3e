"""The whole detector: one training step and one prediction."""

import pytest
import torch

pytest.importorskip('mmdet')
from .tiny import batch, build, sample, tiny_cfg


def losses_of(model: torch.nn.Module, *samples: object) -> dict[str, torch.Tensor]:
    data = model.data_preprocessor(batch(*samples), True)
    return model(**data, mode='loss')


def test_a_step_trains_every_parameter() -> None:
    model = build(tiny_cfg()).train()
    samples = sample([[4, 4, 40, 40], [10, 20, 60, 44]], [0, 2]), sample([], [])
    total, _ = model.parse_losses(losses_of(model, *samples))
    total.backward()
    assert total.isfinite()
    without = [name for name, value in model.named_parameters() if value.grad is None]
    assert without == []
    assert all(value.grad.isfinite().all() for value in model.parameters())


def test_it_predicts_boxes_and_masks_in_original_pixels() -> None:
    cfg = tiny_cfg()
    cfg.test_cfg.rcnn.score_thr = 0.0
    model = build(cfg).eval()
    data = sample([], [], masks=False)
    data.set_metainfo(dict(ori_shape=(96, 128), scale_factor=(0.5, 0.5)))
    with torch.no_grad():
        inputs = model.data_preprocessor(batch(data), False)
        assert inputs['inputs'].shape == (1, 3, 64, 64)
        (found,) = model(**inputs, mode='predict')
    found = found.pred_instances
    assert 0 < len(found) <= 100 and found.masks.shape == (len(found), 96, 128)
    assert (found.bboxes[:, 2] <= 128).all() and found.bboxes[:, 2].max() > 64
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
