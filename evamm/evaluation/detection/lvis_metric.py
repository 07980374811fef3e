"""LVIS's average precision, without the `lvis` package."""

from collections.abc import Sequence

from evamm.datasets.checks import DataError
from evamm.registry import METRICS

from .by_category import curves_by_category
from .coco_metric import CocoMetric
from .ground_truth import GroundTruth, Part
from .predictions import ImagePredictions

_GROUPS = ('r', 'c', 'f')


@METRICS.register_module()
class LVISMetric(CocoMetric):
    """Average precision of boxes and masks after LVIS's protocol.

    Categories are annotated in some images only. A detection counts where its category is
    annotated, or known to be absent (`neg_category_ids`); one that matches nothing does not count
    where the category is not annotated exhaustively (`not_exhaustive_category_ids`).

    Gives `bbox_AP`, `bbox_AP50`, `AP75`, `APs`, `APm`, `APl`, and `APr`, `APc`, `APf` of rare,
    common and frequent categories; the same for `segm`, not rounded.

    Args:
        ann_file: Annotation file of the data set.
        metric: 'bbox', 'segm' or both.
        classwise: Also give and show the average precision of every class.
        max_dets: Detections of an image that count, the best ones of all categories together
            (official: 300).
        outfile_prefix: See :class:`CocoMetric`.
        format_only: See :class:`CocoMetric`.
        bad_data: See :class:`CocoMetric`.
        max_bad: See :class:`CocoMetric`.
        collect_device: See :class:`CocoMetric`.
        prefix: What the names of the results begin with.
        backend_args: Arguments of the file backend, see mmengine.fileio.
    """

    default_prefix = 'lvis'
    CLASSES_BY_ID = True

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = 'bbox',
        classwise: bool = False,
        max_dets: int = 300,
        outfile_prefix: str | None = None,
        format_only: bool = False,
        bad_data: str = 'skip',
        max_bad: float = 0.01,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(
            ann_file=ann_file,
            metric=metric,
            classwise=classwise,
            max_dets=max_dets,
            outfile_prefix=outfile_prefix,
            format_only=format_only,
            bad_data=bad_data,
            max_bad=max_bad,
            collect_device=collect_device,
            prefix=prefix,
            backend_args=backend_args,
        )

    def _read_truth(self) -> GroundTruth:
        truth = super()._read_truth()
        frequencies = [entry.get('frequency') for entry in truth.categories]
        wrong = [number for number, group in enumerate(frequencies) if group not in _GROUPS]
        if wrong and not self.format_only:
            raise DataError(
                f'{self.ann_file}: category {truth.names[wrong[0]]!r} has no frequency ("r", "c" '
                'or "f"); it is not an annotation file of LVIS, which CocoMetric can evaluate.'
            )
        return truth

    def _evaluate(
        self, iou_type: str, predictions: Sequence[ImagePredictions], truth: Part
    ) -> dict[str, float]:
        curves = curves_by_category(iou_type, predictions, truth, self.max_dets, federated=True)
        values = {
            'AP': curves.average_precision(),
            'AP50': curves.average_precision(0.5),
            'AP75': curves.average_precision(0.75),
            'APs': curves.average_precision(area='small'),
            'APm': curves.average_precision(area='medium'),
            'APl': curves.average_precision(area='large'),
        }
        frequencies = [entry['frequency'] for entry in self._truth.categories]
        for group in _GROUPS:
            places = [place for place, of in enumerate(frequencies) if of == group]
            values[f'AP{group}'] = curves.average_precision(categories=places)
        if self.classwise:
            values.update(self._of_classes(iou_type, curves, truth.names))
        return {f'{iou_type}_{key}': value for key, value in values.items()}
