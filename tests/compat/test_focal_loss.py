"""Focal losses against their formula in double precision."""

import math

import pytest
import torch
from mmcv.ops import sigmoid_focal_loss, softmax_focal_loss

import evamm.registry  # noqa: F401  installs the operators

GAMMAS = [0.0, 1.5, 2.0]


def logits_and_targets() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, generator=generator, dtype=torch.float64) * 3
    return logits, torch.tensor([0, 3, 1, 4, 2, 4])  # 4 is background


@pytest.mark.parametrize('gamma', GAMMAS)
def test_sigmoid_loss_equals_the_formula(gamma: float) -> None:
    logits, targets = logits_and_targets()
    expected = torch.zeros_like(logits)
    for n, c in torch.cartesian_prod(torch.arange(6), torch.arange(4)).tolist():
        prob = 1 / (1 + math.exp(-logits[n, c].item()))
        hit = targets[n].item() == c
        right, share = (prob, 0.3) if hit else (1 - prob, 0.7)
        expected[n, c] = -share * (1 - right) ** gamma * math.log(right)
    loss = sigmoid_focal_loss(logits, targets, gamma, 0.3, None, 'none')
    torch.testing.assert_close(loss, expected)
    mean = sigmoid_focal_loss(logits, targets, gamma, 0.3, None, 'mean')
    torch.testing.assert_close(mean, expected.sum() / 6)


@pytest.mark.parametrize('gamma', GAMMAS)
def test_softmax_loss_equals_the_formula(gamma: float) -> None:
    logits, targets = logits_and_targets()
    targets = targets % 4
    targets[2] = -1  # counts nothing
    prob = logits.softmax(dim=1)
    expected = torch.zeros(6, dtype=torch.float64)
    for n, target in enumerate(targets.tolist()):
        if target >= 0:
            right = prob[n, target].item()
            expected[n] = -0.3 * (1 - right) ** gamma * math.log(right)
    loss = softmax_focal_loss(logits, targets, gamma, 0.3, None, 'none')
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('gamma', GAMMAS)
@pytest.mark.parametrize('loss', [sigmoid_focal_loss, softmax_focal_loss])
def test_gradient_equals_finite_differences(loss: object, gamma: float) -> None:
    logits, targets = logits_and_targets()
    targets = targets % 4
    weight = torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    logits.requires_grad_()
    for weights in (None, weight):
        assert torch.autograd.gradcheck(
            lambda x, weights=weights: loss(x, targets, gamma, 0.3, weights, 'sum'), logits
        )


def test_class_weights_multiply_the_samples_and_spare_the_background() -> None:
    logits, targets = logits_and_targets()
    weight = torch.tensor([1.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    plain = sigmoid_focal_loss(logits, targets, 2.0, 0.25, None, 'none')
    weighted = sigmoid_focal_loss(logits, targets, 2.0, 0.25, weight, 'none')
    factor = torch.tensor([1.0, 3.0, 0.5, 1.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(weighted, plain * factor[:, None])


def test_losses_stay_finite_where_the_probability_underflows() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    for target in (0, 1):
        loss = sigmoid_focal_loss(logits, torch.tensor([target]), 2.0, 0.25, None, 'sum')
        (grad,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and grad.isfinite().all()
    # Both classes are wrong with certainty: -log of the smallest normal number, 0.25 and 0.75 times
    assert loss.item() == pytest.approx(126 * math.log(2), rel=1e-5)
