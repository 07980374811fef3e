"""What a pipeline does to the sizes of images, read before the first batch."""

from types import SimpleNamespace

import pytest
from mmcv.transforms import RandomChoiceResize, RandomResize, Resize
from mmengine.dataset import Compose
from torch import nn
from torch.utils.data import Dataset

from evamm.datasets.detection import LargeScaleJitter, ResizeLongestEdge
from evamm.engine.runner import fit
from evamm.engine.runner.fit import _largest_side


@pytest.mark.parametrize(
    ('step', 'side'),
    [
        (ResizeLongestEdge(64), 64),
        (Resize(scale=(1333, 800), keep_ratio=True), 1333),
        (Resize(scale=640), 640),
        (Resize(scale_factor=0.5), None),
        (RandomResize(scale=(1024, 1024), ratio_range=(0.1, 2.0)), 2048),
        (RandomResize(scale=[(1333, 640), (1333, 800)]), 1333),
        (RandomChoiceResize(scales=[(480, 1333), (800, 1400)], keep_ratio=True), 1400),
        (object(), None),
    ],
)
def test_largest_side(step: object, side: int | None) -> None:
    assert _largest_side(step) == side


@pytest.mark.parametrize(
    ('pad_size', 'training', 'warns'),
    [(1536, True, True), (1280, True, False), (1536, False, False), (None, True, False)],
)
def test_crops_that_never_fill_their_square(
    monkeypatch: pytest.MonkeyPatch, pad_size: int | None, training: bool, warns: bool
) -> None:
    """As a training with a config of EVA-01 that is for testing at 1536 pixels would have them."""
    said: list[str] = []
    monkeypatch.setattr(fit, 'print_log', lambda message, **options: said.append(message))
    model, dataset = nn.Module(), Dataset()
    model.data_preprocessor = SimpleNamespace(pad_size=pad_size)
    dataset.pipeline = Compose([LargeScaleJitter(1280)])
    fit._check_sizes(model, 'train_dataloader.dataset', dataset, training=training)
    assert len(said) == warns
    if warns:
        assert 'images of 1280 pixels at most' in said[0] and 'pad_size is 1536' in said[0]
