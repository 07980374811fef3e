"""Sigmoid loss over all classes and over a sample of them."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from evamm.models.losses import FederatedLoss

CLASSES = 40
COUNTS = [(7 * index) % 40 + 1 for index in range(CLASSES)]


def boxes(labels: list[int]) -> tuple[Tensor, Tensor]:
    return torch.randn(len(labels), CLASSES + 1), torch.tensor(labels)


def test_all_classes_count_without_sampling() -> None:
    scores, labels = boxes([3, 3, CLASSES, 39])
    target = torch.zeros(4, CLASSES)
    target[0, 3] = target[1, 3] = target[3, 39] = 1
    expected = F.binary_cross_entropy_with_logits(scores[:, :-1], target, reduction='sum') / 4
    torch.testing.assert_close(FederatedLoss(num_sampled_classes=None)(scores, labels), expected)


def test_the_background_column_is_not_trained() -> None:
    scores, labels = boxes([3, CLASSES])
    scores.requires_grad_()
    FederatedLoss(5, frequencies=COUNTS)(scores, labels).backward()
    assert scores.grad[:, -1].eq(0).all() and scores.grad[:, 3].ne(0).all()


def test_the_draw_is_that_of_multinomial() -> None:
    loss = FederatedLoss(12, frequency_power=0.5, frequencies=COUNTS)
    labels = torch.tensor([5, CLASSES, 7, 5])
    present = [5, 7, CLASSES]  # background counts as one of the twelve
    for seed in range(5):
        torch.manual_seed(seed)
        found = loss.sample_classes(labels, CLASSES)
        torch.manual_seed(seed)
        weights = torch.tensor([*COUNTS, 0.0]) ** 0.5
        weights[present] = 0
        drawn = torch.multinomial(weights, 12 - len(present), replacement=False)
        assert sorted(found.nonzero().flatten().tolist()) == sorted(present + drawn.tolist())


def test_more_classes_than_wanted_all_count() -> None:
    loss = FederatedLoss(3, frequencies=COUNTS)
    found = loss.sample_classes(torch.arange(10), CLASSES)
    assert found.nonzero().flatten().tolist() == list(range(10))


def test_a_class_of_no_image_is_not_drawn() -> None:
    loss = FederatedLoss(30, frequencies=[0] * 30 + [1] * 10)
    found = loss.sample_classes(torch.tensor([CLASSES]), CLASSES)
    assert found.nonzero().flatten().tolist() == list(range(30, 41))


def test_boxes_are_counted_however_few_classes_are() -> None:
    scores, labels = boxes([3] * 8)
    loss = FederatedLoss(5, frequencies=COUNTS)
    torch.manual_seed(1)
    whole = loss(scores, labels)
    torch.manual_seed(1)
    torch.testing.assert_close(loss(scores, labels, avg_factor=16), whole / 2)
    torch.manual_seed(1)
    weighted = FederatedLoss(5, frequencies=COUNTS, loss_weight=3.0)
    torch.testing.assert_close(weighted(scores, labels), whole * 3)
    torch.manual_seed(1)
    half = loss(scores, labels, torch.full((8,), 0.5))
    torch.testing.assert_close(half, whole / 2)


def test_half_precision_logits_give_a_float32_loss() -> None:
    scores, labels = boxes([3, CLASSES])
    loss = FederatedLoss(None)(scores.bfloat16(), labels)
    torch.testing.assert_close(loss, FederatedLoss(None)(scores.bfloat16().float(), labels))


def test_frequencies_from_files(tmp_path: Path) -> None:
    categories = [dict(id=index + 1, image_count=count) for index, count in enumerate(COUNTS)]
    wanted = FederatedLoss(frequencies=COUNTS).class_weights
    contents = dict(plain=COUNTS, lvis=categories[::-1], dataset=dict(categories=categories))
    for name, content in contents.items():
        path = tmp_path / f'{name}.json'
        path.write_text(json.dumps(content))
        assert torch.equal(FederatedLoss(frequencies=path).class_weights, wanted)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match='frequencies'):
        FederatedLoss()
    with pytest.raises(ValueError, match='is for 39 classes, but num_classes of the head is 40'):
        FederatedLoss(frequencies=COUNTS[:-1])(*boxes([1]))
    assert list(FederatedLoss(frequencies=COUNTS).state_dict()) == []
