"""How well a model of masked image modelling predicts its teacher."""

from collections.abc import Sequence

from mmengine.evaluator import BaseMetric

from evamm.registry import METRICS


@METRICS.register_module()
class MIMCosine(BaseMetric):
    """Mean cosine between predictions and targets over all masked patches, between -1 and 1.

    It is the negative of the official validation loss (``evaluate_pt`` of
    ``engine_for_pretraining.py``), which is averaged over batches; with the fixed pattern of
    :class:`evamm.EvenMasking` and batches of one size the two agree.

    Samples have ``mim_cosine``, the mean over the masked patches of an image, and ``num_masked``.

    Args:
        collect_device: ``'cpu'`` or ``'gpu'``.
        prefix: Of the name of the metric, ``mim/cosine``.
    """

    default_prefix = 'mim'

    def __init__(self, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Takes note of a batch."""
        for sample in data_samples:
            count = int(sample['num_masked'])
            self.results.append((float(sample['mim_cosine']) * count, count))

    def compute_metrics(self, results: list[tuple[float, int]]) -> dict[str, float]:
        """The mean over all patches."""
        total = sum(count for _, count in results)
        if not total:
            raise ValueError(
                'MIMCosine saw no masked patch: add evamm.EvenMasking to the pipeline of '
                'val_dataloader.'
            )
        return {'cosine': sum(value for value, _ in results) / total}
