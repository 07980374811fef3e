"""What is kept of a detector's predictions."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')

from pycocotools import mask as mask_util

from evamm.evaluation.detection import CocoMetric


@pytest.mark.parametrize('metric', ['bbox', ['bbox', 'segm']])
def test_masks_are_encoded_only_to_be_compared(metric: str | list[str]) -> None:
    masks = torch.zeros(1, 6, 8, dtype=torch.bool)
    masks[0, 2:4, 1:5] = True
    found = dict(
        bboxes=torch.tensor([[1.0, 2, 5, 4]]),
        scores=torch.tensor([0.5]),
        labels=torch.tensor([1]),
        masks=masks,
    )
    sample = dict(img_id=3, ori_shape=(6, 8), pred_instances=found)
    evaluator = CocoMetric('none.json', metric)
    evaluator.process(None, [sample])
    (kept,) = evaluator.results
    assert kept.boxes.tolist() == [[1, 2, 5, 4]]
    if metric == 'bbox':
        assert kept.runs is None
    else:
        decoded = mask_util.decode({'size': [6, 8], 'counts': kept.runs[0]})
        np.testing.assert_array_equal(decoded, masks[0].numpy())
