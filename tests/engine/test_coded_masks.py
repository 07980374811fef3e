"""When a detector is asked for masks as codes: its metrics read them and nothing is drawn."""

from types import SimpleNamespace

import pytest
from mmengine.config import ConfigDict
from mmengine.evaluator import BaseMetric
from torch import nn

from evamm.engine.runner.predictions import PredictionWriter, ask_for_coded_masks


class OtherMetric(BaseMetric):
    """May look at pixels."""

    process = compute_metrics = None


class Head(nn.Module):
    takes_mask_format = True

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.test_cfg = ConfigDict(score_thr=0.1, **settings)


@pytest.mark.parametrize(
    ('metric', 'draw', 'settings', 'expected'),
    [
        (PredictionWriter, False, {}, 'rle'),
        (OtherMetric, False, {}, None),
        (PredictionWriter, True, {}, None),
        (PredictionWriter, False, {'mask_format': 'bitmap'}, 'bitmap'),
    ],
)
def test_codes_where_nothing_needs_pixels(metric, draw, settings, expected) -> None:
    metric = PredictionWriter('a.json') if metric is PredictionWriter else metric()
    model = nn.Module()
    model.roi_head = Head(**settings)
    before = model.roi_head.test_cfg
    runner = SimpleNamespace(
        model=model,
        hooks=[SimpleNamespace(draw=draw), SimpleNamespace()],
        test_loop=SimpleNamespace(evaluator=SimpleNamespace(metrics=[metric])),
        val_loop=None,
    )
    ask_for_coded_masks(runner, ('val', 'test'))
    assert model.roi_head.test_cfg.get('mask_format') == expected
    assert before == ConfigDict(score_thr=0.1, **settings)  # it belongs to the config of the run


def test_other_models_are_left_alone() -> None:
    runner = SimpleNamespace(model=nn.Linear(2, 2))
    ask_for_coded_masks(runner, ('test',))
    runner.model.roi_head = nn.Linear(2, 2)
    ask_for_coded_masks(runner, ('test',))
