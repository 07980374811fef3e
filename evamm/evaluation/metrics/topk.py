"""Top-k accuracy, counted sample by sample."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric


class TopkMetric(BaseMetric):
    """Share of samples in % for which one of the k highest scores is right.

    Every sample leaves exactly one entry, also one that does not count: an empty tuple. mmengine
    gathers the entries of several processes in sample order and cuts the padding off at the
    length of the data set, which is only right with one entry per sample (and it drops None).

    Args:
        topk: The k to report.
        collect_device: Where results of several processes are gathered, 'cpu' or 'gpu'.
        prefix: First part of the names of the results.
    """

    default_prefix = 'accuracy'

    def __init__(
        self, topk: Sequence[int] = (1, 5), collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.topk = tuple(topk)

    def hits(self, sample: dict) -> tuple[bool, ...]:
        """Return whether the sample is right for every k; empty when it does not count."""
        raise NotImplementedError

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        self.results += [self.hits(sample) for sample in data_samples]

    def compute_metrics(self, results: list[tuple[bool, ...]]) -> dict[str, float]:
        counted = [hits for hits in results if hits]
        if not counted:
            raise ValueError(f'{type(self).__name__}: none of the {len(results)} samples counts')
        means = torch.tensor(counted, dtype=torch.float64).mean(dim=0) * 100
        return {f'top{k}': mean for k, mean in zip(self.topk, means.tolist(), strict=True)}

    def best_classes(self, scores: torch.Tensor) -> list[int]:
        """Return the classes with the highest scores, best first, as many as the largest k."""
        if max(self.topk) > len(scores):
            raise ValueError(
                f'{type(self).__name__}: `topk={self.topk}` asks for more classes than the '
                f'{len(scores)} that compete'
            )
        return scores.topk(max(self.topk)).indices.tolist()
