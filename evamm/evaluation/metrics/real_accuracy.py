"""Accuracy on the reassessed labels of ImageNet (ReaL)."""

import json
from collections.abc import Sequence

from mmengine import fileio

from evamm.registry import METRICS

from .topk import TopkMetric


@METRICS.register_module()
class RealAccuracy(TopkMetric):
    """Top-k accuracy on the reassessed ("ReaL") labels of the ImageNet validation images.

    An image may have several right labels; it is right when one of them is among the k best
    classes, and does not count when it has none. Labels are found by file name, so neither the
    order of the images nor the number of processes matters.

    Args:
        real_json: File ``real.json`` of github.com/google-research/reassessed-imagenet: a list
            with the labels of ILSVRC2012_val_00000001, ..._00000002, ...
        topk: The k to report.
        collect_device: Where results of several processes are gathered, 'cpu' or 'gpu'.
        prefix: First part of the names of the results.
    """

    default_prefix = 'real'

    def __init__(
        self,
        real_json: str,
        topk: Sequence[int] = (1, 5),
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(topk=topk, collect_device=collect_device, prefix=prefix)
        self.real_json = real_json
        if not fileio.isfile(real_json):
            raise FileNotFoundError(
                f'RealAccuracy: there is no file {real_json}. Download real.json from '
                'github.com/google-research/reassessed-imagenet and set `real_json` to it.'
            )
        labels = json.loads(fileio.get_text(real_json))
        if not isinstance(labels, list) or not all(isinstance(item, list) for item in labels):
            raise ValueError(
                f'RealAccuracy: {real_json} must be a list of lists of labels, one per '
                'validation image'
            )
        self.real_labels = {
            f'ILSVRC2012_val_{number:08d}': frozenset(item)
            for number, item in enumerate(labels, start=1)
        }

    def hits(self, sample: dict) -> tuple[bool, ...]:
        if 'img_path' not in sample:
            raise ValueError(
                'RealAccuracy finds labels by file name, but the samples carry no `img_path`. '
                "Keep 'img_path' in `meta_keys` of PackInputs."
            )
        name = sample['img_path'].replace('\\', '/').rsplit('/', maxsplit=1)[-1]
        try:
            labels = self.real_labels[name.rsplit('.', maxsplit=1)[0]]
        except KeyError:
            raise ValueError(
                f'RealAccuracy: {sample["img_path"]} has no entry in {self.real_json}. Files '
                'must keep their original names, such as ILSVRC2012_val_00000001.JPEG.'
            ) from None
        if not labels:
            return ()
        best = self.best_classes(sample['pred_score'])
        return tuple(not labels.isdisjoint(best[:k]) for k in self.topk)
