"""Accuracy among some of the classes (ImageNet-A and -R)."""

from collections.abc import Sequence

from evamm.registry import METRICS

from .topk import TopkMetric


@METRICS.register_module()
class SubsetAccuracy(TopkMetric):
    """Top-k accuracy when only some of the model's classes compete.

    ImageNet-A and -R have 200 of the 1,000 classes, and the official evaluation keeps only those
    rows of the classification head. Dropping the other scores gives the same ranking without
    touching the model.

    Args:
        classes: Labels that compete. None takes ``label_subset`` from the dataset's meta
            information.
        topk: The k to report.
        collect_device: Where results of several processes are gathered, 'cpu' or 'gpu'.
        prefix: First part of the names of the results.
    """

    def __init__(
        self,
        classes: Sequence[int] | None = None,
        topk: Sequence[int] = (1, 5),
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(topk=topk, collect_device=collect_device, prefix=prefix)
        self.classes = classes

    def hits(self, sample: dict) -> tuple[bool, ...]:
        classes = self.classes
        if classes is None:
            classes = (self.dataset_meta or {}).get('label_subset')
        if classes is None:
            raise ValueError(
                'SubsetAccuracy does not know which classes compete: the dataset has no meta '
                'information `label_subset`. Give `classes=[...]` or use evamm.ImageNetA / '
                'evamm.ImageNetR.'
            )
        label = int(sample['gt_label'])
        if label not in classes:
            raise ValueError(
                f'SubsetAccuracy: {sample.get("img_path", "a sample")} has label {label}, which '
                f'is not among the {len(classes)} classes that compete'
            )
        scores = sample['pred_score']
        if max(classes) >= len(scores):
            raise ValueError(
                f'SubsetAccuracy: class {max(classes)} competes, but the model has only '
                f'{len(scores)} classes. Use a model with all ImageNet-1K classes.'
            )
        best = [classes[i] for i in self.best_classes(scores[list(classes)])]
        return tuple(label in best[:k] for k in self.topk)
