"""Focal losses: `sigmoid_focal_loss_*` and `softmax_focal_loss_*` of `mmcv._ext`.

Lin et al., "Focal Loss for Dense Object Detection" (arXiv 1708.02002).
"""

import torch
from torch import Tensor

__all__ = [
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softmax_focal_loss_backward',
    'softmax_focal_loss_forward',
]


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the loss of every sample and class.

    Args:
        input: `[N, C]` logits.
        target: `[N]` int64, class of each sample; C for background.
        weight: `[C]` weight of a sample by its class, or empty.
        output: `[N, C]`, written.
        gamma: focusing exponent.
        alpha: weight of the positive term; the negative one has 1 - alpha.
    """
    prob = input.sigmoid()
    positive = alpha * (1 - prob) ** gamma * _safe_log(prob)
    negative = (1 - alpha) * prob**gamma * _safe_log(1 - prob)
    loss = -torch.where(_is_target(input, target), positive, negative)
    output.copy_(loss * _sample_weight(weight, target)[:, None])


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the derivative of each element of the loss with respect to its logit."""
    prob = input.sigmoid()
    positive = alpha * (1 - prob) ** gamma * (1 - prob - gamma * prob * _safe_log(prob))
    negative = (1 - alpha) * prob**gamma * (gamma * (1 - prob) * _safe_log(1 - prob) - prob)
    grad = -torch.where(_is_target(input, target), positive, negative)
    grad_input.copy_(grad * _sample_weight(weight, target)[:, None])


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Writes the loss of every sample; a negative target counts nothing.

    Args:
        input: `[N, C]`, the softmax itself, not the logits.
        target: `[N]` int64.
        weight: `[C]` weight of a sample by its class, or empty.
        output: `[N]`, written.
    """
    prob = input.gather(1, target.clamp(min=0)[:, None])[:, 0]  # [N]
    loss = -alpha * (1 - prob) ** gamma * _safe_log(prob)
    output.copy_(torch.where(target >= 0, loss * _sample_weight(weight, target), 0))


def softmax_focal_loss_backward(
    input: Tensor,
    target: Tensor,
    weight: Tensor,
    buff: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Writes the derivative of each sample's loss with respect to its logits.

    Args:
        input: `[N, C]`, the softmax.
        buff: `[N]`, written: the part that all classes of a sample share.
        grad_input: `[N, C]`, written.
    """
    prob = input.gather(1, target.clamp(min=0)[:, None])[:, 0]  # [N]
    slope = gamma * (1 - prob) ** (gamma - 1) * prob * _safe_log(prob) - (1 - prob) ** gamma
    shared = alpha * slope * _sample_weight(weight, target)
    buff.copy_(torch.where(target >= 0, shared, 0))
    grad_input.copy_(buff[:, None] * (_is_target(input, target).to(input.dtype) - input))


def _is_target(input: Tensor, target: Tensor) -> Tensor:
    return torch.arange(input.shape[1], device=input.device) == target[:, None]  # [N, C]


def _safe_log(prob: Tensor) -> Tensor:
    return prob.clamp(min=torch.finfo(torch.float32).tiny).log()


def _sample_weight(weight: Tensor, target: Tensor) -> Tensor:
    """Weight of each sample `[N]`: 1 without weights, and for background, which has no entry."""
    if weight.numel() == 0:
        return torch.ones_like(target, dtype=weight.dtype)
    listed = (target >= 0) & (target < len(weight))
    return torch.where(listed, weight[target.clamp(0, len(weight) - 1)], 1)
