"""Nearest-neighbour accuracy while a model trains."""

import torch.nn.functional as F
from torch import Tensor

from evamm.registry import HOOKS

from ..errors import ConfigError
from .feature_probe import FeatureProbeHook


@HOOKS.register_module()
class KNNHook(FeatureProbeHook):
    """Accuracy of a weighted nearest-neighbour vote, as in DINO (2104.14294, section 4.1).

    The k most similar labelled features (cosine) vote for their classes with exp(similarity / T).

    Args:
        train_dataloader: See :class:`FeatureProbeHook`, as for the other three.
        test_dataloader: Scored images.
        interval: Epochs or iterations between two measurements.
        max_train_samples: Labelled samples that are used.
        k: Neighbours that vote.
        temperature: T.
    """

    name = 'knn'

    def __init__(
        self,
        train_dataloader: dict,
        test_dataloader: dict,
        interval: int = 1,
        max_train_samples: int | None = None,
        k: int = 20,
        temperature: float = 0.07,
    ) -> None:
        super().__init__(train_dataloader, test_dataloader, interval, max_train_samples)
        if k < 1 or temperature <= 0:
            raise ConfigError(f'KNNHook: k={k} and temperature={temperature} must be positive.')
        self.k = k
        self.temperature = temperature

    def score(
        self, features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor
    ) -> float:
        """Accuracy in % of the vote."""
        bank = F.normalize(features, dim=1)
        classes = int(max(labels.max(), test_labels.max())) + 1
        right = 0
        for query, truth in zip(
            F.normalize(test_features, dim=1).split(1024), test_labels.split(1024), strict=True
        ):
            similarity, nearest = (query @ bank.T).topk(min(self.k, len(bank)))  # [B, k]
            votes = query.new_zeros(len(query), classes)
            votes.scatter_add_(1, labels[nearest], (similarity / self.temperature).exp())
            right += int((votes.argmax(1) == truth).sum())
        return 100 * right / len(test_labels)
