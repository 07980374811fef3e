"""Losses of image-text training in one process; tests/models/clip/test_distributed.py has two."""

import math

import pytest
import torch
import torch.nn.functional as F

from evamm.models.losses import ContrastiveLoss, SigmoidLoss
from evamm.models.losses.gather import gather_features
from evamm.registry import MODELS


def features(count=6, dims=8, dtype=torch.float32):
    torch.manual_seed(0)
    pair = (torch.randn(count, dims, dtype=dtype) for _ in range(2))
    return tuple(F.normalize(part, dim=-1).requires_grad_() for part in pair)


def contrastive_formula(images, texts, scale, smoothing=0.0):
    total, count = 0, len(images)
    for i in range(count):
        for own, others in ((images[i], texts), (texts[i], images)):
            log_probs = torch.log_softmax(scale * (others @ own), dim=0)
            total -= (1 - smoothing) * log_probs[i] + smoothing * log_probs.mean()
    return total / (2 * count)


@pytest.mark.parametrize('local_loss', [True, False])
@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_contrastive_loss_is_the_formula(local_loss, smoothing):
    images, texts = features(dtype=torch.float64)
    scale = torch.tensor(20.0, dtype=torch.float64)
    loss = ContrastiveLoss(local_loss=local_loss, label_smoothing=smoothing)(images, texts, scale)
    expected = contrastive_formula(images, texts, scale, smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_sigmoid_loss_is_the_formula():
    images, texts = features(dtype=torch.float64)
    scale, bias = torch.tensor([10.0, -3.0], dtype=torch.float64)
    expected = 0
    for i in range(6):
        for j in range(6):
            sign = 1 if i == j else -1
            expected += math.log1p(math.exp(-sign * (scale * images[i] @ texts[j] + bias).item()))
    loss = SigmoidLoss()(images, texts, scale, bias)
    assert loss.item() == pytest.approx(expected / 6, rel=1e-12)


@pytest.mark.parametrize('name', ['contrastive', 'sigmoid'])
def test_equals_open_clip(name):
    open_clip = pytest.importorskip('open_clip')
    values = []
    for ours in (True, False):
        images, texts = features()
        scale = torch.tensor(30.0, requires_grad=True)
        bias = torch.tensor(-10.0, requires_grad=True)
        if name == 'contrastive':
            loss = ContrastiveLoss() if ours else open_clip.loss.ClipLoss()
            value = loss(images, texts, scale)
        else:
            loss = SigmoidLoss() if ours else open_clip.loss.SigLipLoss()
            value = loss(images, texts, scale, bias)
        value.backward()
        values.append([value.detach(), images.grad, texts.grad, scale.grad])
    for found, expected in zip(*values, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('loss', [ContrastiveLoss(), SigmoidLoss()])
def test_half_precision_features_give_a_float32_loss(loss):
    """Under autocast the product of features would be rounded to three digits."""
    images, texts = (part.detach() for part in features(64, 32))
    scale, bias = torch.tensor(100.0), torch.tensor(-10.0)
    halves = images.bfloat16(), texts.bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = loss(*halves, scale, bias)
    assert found.dtype == torch.float32
    expected = loss(*(half.float() for half in halves), scale, bias)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_sigmoid_loss_asks_for_a_bias():
    images, texts = features()
    with pytest.raises(ValueError, match='logit_bias=-10.0'):
        SigmoidLoss()(images, texts, torch.tensor(10.0))


def test_one_process_gathers_nothing():
    images, texts = features()
    assert gather_features(images, texts, with_grad=True) == (images, texts)


def test_built_by_name():
    loss = MODELS.build(dict(type='evamm.ContrastiveLoss', label_smoothing=0.1))
    assert isinstance(loss, ContrastiveLoss)
    assert isinstance(MODELS.build(dict(type='evamm.SigmoidLoss')), SigmoidLoss)
