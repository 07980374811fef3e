"""Linear-probe accuracy while a model trains."""

import torch
import torch.nn.functional as F
from torch import Tensor

from evamm.registry import HOOKS

from .feature_probe import FeatureProbeHook


@HOOKS.register_module()
class LinearProbeHook(FeatureProbeHook):
    """Accuracy of a linear classifier trained on frozen features of unaugmented images.

    Multinomial logistic regression on standardised features, fitted with L-BFGS to its optimum: no
    learning rate to choose and no randomness. It ranks checkpoints; the published linear evaluation
    (augmentation, 90 epochs of LARS) is a config of its own.

    Args:
        train_dataloader: See :class:`FeatureProbeHook`, as for the other three.
        test_dataloader: Scored images.
        interval: Epochs or iterations between two measurements.
        max_train_samples: Labelled samples that are used.
        weight_decay: Strength of the quadratic penalty on the weights.
        max_iters: Iterations of L-BFGS.
    """

    name = 'linear'

    def __init__(
        self,
        train_dataloader: dict,
        test_dataloader: dict,
        interval: int = 1,
        max_train_samples: int | None = None,
        weight_decay: float = 1e-4,
        max_iters: int = 100,
    ) -> None:
        super().__init__(train_dataloader, test_dataloader, interval, max_train_samples)
        self.weight_decay = weight_decay
        self.max_iters = max_iters

    def score(
        self, features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor
    ) -> float:
        """Accuracy in % of the classifier."""
        mean, std = features.mean(0), features.std(0, correction=0).clamp(min=1e-6)
        features, test_features = (features - mean) / std, (test_features - mean) / std
        classes = int(max(labels.max(), test_labels.max())) + 1
        weight = features.new_zeros(classes, features.shape[1], requires_grad=True)
        bias = features.new_zeros(classes, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=self.max_iters, line_search_fn='strong_wolfe'
        )
        rows = 65536  # bounds the memory of the logits

        def closure() -> Tensor:
            optimizer.zero_grad()
            total = self.weight_decay * weight.square().sum() / 2
            total.backward()
            for part, truth in zip(features.split(rows), labels.split(rows), strict=True):
                logits = F.linear(part, weight, bias)  # [rows, classes]
                loss = F.cross_entropy(logits, truth, reduction='sum') / len(features)
                loss.backward()
                total = total.detach() + loss.detach()
            return total

        optimizer.step(closure)
        with torch.no_grad():
            right = sum(
                int((F.linear(part, weight, bias).argmax(1) == truth).sum())
                for part, truth in zip(
                    test_features.split(rows), test_labels.split(rows), strict=True
                )
            )
        return 100 * right / len(test_labels)
