"""COCO's average precision."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine import fileio
from mmengine.dist import is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from rich.console import Console
from rich.table import Table

from evamm.datasets.checks import DataError
from evamm.datasets.detection.annotations import no_garbage_collection
from evamm.datasets.detection.bad_data import BadData, check_settings
from evamm.registry import METRICS

from .average_precision import Curves, require_faster_coco_eval
from .by_category import curves_by_category
from .ground_truth import OWNER, GroundTruth, Part
from .predictions import ImagePredictions

IOU_TYPES = ('bbox', 'segm')


@METRICS.register_module()
class CocoMetric(BaseMetric):
    """Average precision of boxes and masks after COCO's protocol.

    Gives `bbox_mAP`, `bbox_mAP_50`, `_75`, `_s`, `_m`, `_l` and `bbox_AR`, the same for `segm`, not
    rounded. The numbers are those of pycocotools; -1 means that there is nothing to find. Images
    that were not predicted do not count: a part of a data set can be evaluated.

    The annotation file is read and checked once, when a run begins, by the rules of the data sets:
    what cannot be used is not looked for either. Boxes without area or outside of their image,
    which a training leaves out, count as objects that were not found, as with pycocotools.

    Args:
        ann_file: Annotation file of the data set.
        metric: 'bbox', 'segm' or both.
        classwise: Also give and show the average precision of every class.
        max_dets: Detections of an image and a category that count, the best ones. Models that
            return more are cut here.
        outfile_prefix: Write all predictions to PREFIX.bbox.json and PREFIX.segm.json, in the
            format of COCO's and LVIS's evaluation servers.
        format_only: Only write them; for sets without annotations.
        bad_data: 'skip' leaves out and counts what cannot be used; 'stop' allows nothing.
        max_bad: Largest share of the annotations, or of the images, that may be bad.
        collect_device: Where the results of several processes are collected, 'cpu' or 'gpu'.
        prefix: What the names of the results begin with.
        backend_args: Arguments of the file backend, see mmengine.fileio.

    Raises:
        DataError: The file cannot be used, or too much of it is bad; says what and where.
    """

    default_prefix = 'coco'
    # Data sets that do not say which category a class is: by names, or by the order of the ids.
    CLASSES_BY_ID = False

    def __init__(
        self,
        ann_file: str,
        metric: str | Sequence[str] = 'bbox',
        classwise: bool = False,
        max_dets: int = 100,
        outfile_prefix: str | None = None,
        format_only: bool = False,
        bad_data: str = 'skip',
        max_bad: float = 0.01,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.metrics = [metric] if isinstance(metric, str) else list(metric)
        name = type(self).__name__
        if not self.metrics or not set(self.metrics) <= set(IOU_TYPES):
            raise ValueError(f'{name}: `metric` must be of {IOU_TYPES}, found {metric!r}')
        if format_only and outfile_prefix is None:
            raise ValueError(f'{name}: `format_only` needs `outfile_prefix`')
        check_settings(name, bad_data, max_bad)
        if not format_only:
            require_faster_coco_eval()
        self.ann_file = ann_file
        self.classwise = classwise
        self.max_dets = max_dets
        self.outfile_prefix = outfile_prefix
        self.format_only = format_only
        self.bad_data = bad_data
        self.max_bad = max_bad
        self.backend_args = backend_args
        self._truth: GroundTruth | None = None

    @property
    def dataset_meta(self) -> dict | None:
        """What the data set says about itself."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        # Set when a run begins: the right time to miss a file, or a mask in it.
        self._dataset_meta = meta
        self._truth = self._read_truth() if is_main_process() else None

    def _read_truth(self) -> GroundTruth:
        source = f'{type(self).__name__}: {self.ann_file}'
        return GroundTruth(
            self.ann_file,
            self.dataset_meta,
            BadData(source, self.bad_data, self.max_bad, OWNER),
            self.backend_args,
            by_id=self.CLASSES_BY_ID,
            with_mask='segm' in self.metrics,
            with_annotations=not self.format_only,
        )

    def process(self, data_batch: Any, data_samples: Sequence[Mapping]) -> None:
        """Take the predictions of a batch."""
        with_masks = 'segm' in self.metrics
        self.results += [
            ImagePredictions.from_sample(sample, with_masks=with_masks) for sample in data_samples
        ]

    def compute_metrics(self, results: list[ImagePredictions]) -> dict[str, float]:
        """Average precisions of all images."""
        # What fills up the last batches of several processes comes twice.
        predictions = list({result.image_id: result for result in results}.values())
        truth = self._truth.part({result.image_id for result in predictions})
        if len(truth.images) < self._truth.listed:
            print_log(
                f'{len(truth.images)} of the {self._truth.listed} images in {self.ann_file} are '
                'evaluated.',
                logger='current',
                level=logging.WARNING,
            )
        self._compare_sizes(predictions, truth)
        missing = [result for result in predictions if result.runs is None]
        if 'segm' in self.metrics and missing:
            raise DataError(
                f'{type(self).__name__}: the model predicts no masks; take "segm" out of `metric`.'
            )
        if self.outfile_prefix is not None:
            for iou_type in self.metrics:
                self._write(iou_type, predictions, truth)
        if self.format_only:
            return {}
        found: dict[str, float] = {}
        with no_garbage_collection():
            for iou_type in self.metrics:
                found.update(self._evaluate(iou_type, predictions, truth))
        return found

    def _compare_sizes(self, predictions: Sequence[ImagePredictions], truth: Part) -> None:
        """Boxes in the pixels of another image match nothing; say so."""
        stated = {image['id']: (image['height'], image['width']) for image in truth.images}
        other = [result for result in predictions if result.size != stated[result.image_id]]
        if other:
            height, width = stated[other[0].image_id]
            print_log(
                f'{len(other)} of {len(predictions)} images are not of the size that '
                f'{self.ann_file} states, such as {other[0].image_id!r}: {other[0].size[1]} x '
                f'{other[0].size[0]} pixels instead of {width} x {height}. Their objects are in '
                'other places, and the result is too low; correct the images or the file.',
                logger='current',
                level=logging.WARNING,
            )

    def _evaluate(
        self, iou_type: str, predictions: Sequence[ImagePredictions], truth: Part
    ) -> dict[str, float]:
        curves = curves_by_category(iou_type, predictions, truth, self.max_dets)
        values = {
            'mAP': curves.average_precision(),
            'mAP_50': curves.average_precision(0.5),
            'mAP_75': curves.average_precision(0.75),
            'mAP_s': curves.average_precision(area='small'),
            'mAP_m': curves.average_precision(area='medium'),
            'mAP_l': curves.average_precision(area='large'),
            'AR': curves.average_recall(),
        }
        if self.classwise:
            values.update(self._of_classes(iou_type, curves, truth.names))
        return {f'{iou_type}_{key}': value for key, value in values.items()}

    def _of_classes(self, iou_type: str, curves: Curves, names: Sequence[str]) -> dict[str, float]:
        """Average precision of every class; also shown as a table."""
        table = Table('class', 'AP', 'AP50', 'AP75', 'small', 'medium', 'large', title=iou_type)
        values = {}
        for place, name in enumerate(names):
            parts = [{}, {'threshold': 0.5}, {'threshold': 0.75}]
            parts += [{'area': area} for area in ('small', 'medium', 'large')]
            row = [curves.average_precision(**part, categories=[place]) for part in parts]
            table.add_row(name, *(f'{100 * value:.1f}' if value >= 0 else '-' for value in row))
            values[f'{name}_precision'] = row[0]
        console = Console(width=100)
        with console.capture() as captured:
            console.print(table)
        print_log(f'\n{captured.get()}', logger='current')
        return values

    def _write(self, iou_type: str, predictions: Sequence[ImagePredictions], truth: Part) -> None:
        texts = []  # rows take ten times as much memory
        for image in predictions:
            for row in image.rows(iou_type, truth.category_ids):
                row.pop('area', None)
                if iou_type == 'segm':
                    # pycocotools would take the areas of boxes for those of masks.
                    row.pop('bbox')
                    row['segmentation']['counts'] = row['segmentation']['counts'].decode()
                texts.append(json.dumps(row))
        path = f'{self.outfile_prefix}.{iou_type}.json'
        fileio.put_text(f'[{", ".join(texts)}]', path, backend_args=self.backend_args)
        print_log(f'The predictions are in {path}.', logger='current')
