"""Annotation files as detections are compared with them."""

import pickle
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evamm.datasets.checks import DataError
from evamm.datasets.detection.annotations import (
    NO_CLASS,
    Annotations,
    Image,
    categories_of,
    no_garbage_collection,
    read_coco_json,
)
from evamm.datasets.detection.bad_data import BadData
from evamm.datasets.detection.problems import is_polygon

OWNER = 'the evaluator'
_LISTS = ('neg_category_ids', 'not_exhaustive_category_ids')  # of LVIS


class GroundTruth:
    """A whole annotation file, checked by the rules of the data sets.

    Made when a run begins, so that what cannot be used is found before anything is predicted.
    Kept as bytes, of which the processes that load data need no copy of their own, until each
    evaluation: the file is not read again.

    Args:
        ann_file: File in COCO's format.
        meta: `classes` of the data set and, where its labels do not follow names, `category_ids`.
        bad: Takes note of what cannot be used.
        backend_args: Arguments of the file backend.
        by_id: Without `category_ids`, the classes are all categories in the order of their ids.
        with_mask: Masks are compared.
        with_annotations: They are needed, to compare predictions with them.

    Raises:
        DataError: The file does not exist, lacks a class, or too much of it cannot be used.
    """

    def __init__(
        self,
        ann_file: str,
        meta: Mapping[str, Any],
        bad: BadData,
        backend_args: dict | None = None,
        *,
        by_id: bool = False,
        with_mask: bool = False,
        with_annotations: bool = True,
    ) -> None:
        self.ann_file = ann_file
        self._with_mask = with_mask
        with no_garbage_collection():
            data = read_coco_json(ann_file, backend_args, OWNER)
            if not with_annotations:
                data['annotations'] = []
            self._find_categories(data, meta, by_id)
            images, rows = self._usable(data, bad)
            self.listed = len(data['images'])
            self._images, self._rows = pickle.dumps(images), pickle.dumps(rows)

    def _find_categories(self, data: Mapping, meta: Mapping, by_id: bool) -> None:
        category_ids = meta.get('category_ids')
        if category_ids is None:
            category_ids, _ = categories_of(self.ann_file, data, meta['classes'], by_id=by_id)
        entries = {entry['id']: entry for entry in data['categories']}
        lacking = [number for number in category_ids if number not in entries]
        if lacking:
            raise DataError(
                f'{self.ann_file} has no category {lacking[0]}, which the data set has: ann_file '
                'of the evaluator and of the data set must be the same file.'
            )
        self.category_ids = list(category_ids)
        self.categories = [entries[number] for number in category_ids]
        self.names = [entry['name'] for entry in self.categories]

    def _usable(self, data: Mapping, bad: BadData) -> tuple[list[dict], list[dict]]:
        rows = data['annotations']
        if self._with_mask and rows and not any(_has_mask(row) for row in rows):
            raise DataError(
                f'{self.ann_file}: no annotation has a segmentation, so masks cannot be '
                "evaluated; add them, or take 'segm' out of `metric` of the evaluator."
            )
        labels = {entry['id']: NO_CLASS for entry in data['categories']}
        labels |= {number: label for label, number in enumerate(self.category_ids)}
        annotations = Annotations(
            data,
            labels,
            _file_name,
            bad,
            with_mask=self._with_mask,
            check_files=False,
            for_evaluation=True,
        )
        images, kept = [], []
        for image in annotations.images():
            images.append(self._image(image.entry))
            kept += self._rows_of(image, annotations)
        bad.conclude(len(rows), len(data['images']))
        return images, kept

    def _image(self, entry: Mapping) -> dict[str, Any]:
        lists = {key: entry[key] for key in _LISTS if entry.get(key) is not None}
        for key, value in lists.items():
            if not isinstance(value, list):
                raise DataError(
                    f'{self.ann_file}: {key} of image {entry["id"]} is {value!r}; write a list of '
                    'category ids.'
                )
        return {**{key: entry[key] for key in ('id', 'height', 'width')}, **lists}

    def _rows_of(self, image: Image, annotations: Annotations) -> Iterator[dict[str, Any]]:
        """Usable annotations of an image as :func:`evaluate` takes them."""
        for row, _ in annotations.usable(image):
            box, area = row['bbox'], row.get('area')
            if area is None:
                area = box[2] * box[3]
            if not isinstance(area, (int, float)) or area - area != 0:  # NaN and infinity too
                annotations.reject('annotations whose area is no number', row, image)
                continue
            taken = {
                'image_id': image.entry['id'],
                'category_id': row['category_id'],
                'bbox': box,
                'area': area,
                'iscrowd': int(row.get('iscrowd') or 0),
            }
            if self._with_mask:
                mask = row['segmentation']
                # As masks are loaded: what is no polygon beside polygons does not count.
                mask = list(filter(is_polygon, mask)) if isinstance(mask, list) else mask
                taken['segmentation'] = mask
            yield taken

    def part(self, image_ids: Collection) -> 'Part':
        """The annotations of some images.

        Args:
            image_ids: Images that were predicted.

        Raises:
            DataError: The file lacks one of them.
        """
        images = [image for image in pickle.loads(self._images) if image['id'] in image_ids]
        known = {image['id'] for image in images}
        unknown = [number for number in image_ids if number not in known]
        if unknown:
            raise DataError(
                f'{self.ann_file} does not list {len(unknown)} of {len(image_ids)} images that '
                f'were predicted, such as {unknown[0]!r}: ann_file of the evaluator and of the '
                'data set must be the same file.'
            )
        return Part(images, self.category_ids, self.names, self._rows)


@dataclass(frozen=True)
class Part:
    """What the predictions of some images are compared with.

    Args:
        images: `id`, `height`, `width` and, if the file has them, `neg_category_ids` and
            `not_exhaustive_category_ids` of every image.
        category_ids: Id of the category of every label.
        names: Names of the classes.
        content: Annotations of the whole file, pickled by this process.
    """

    images: list[dict[str, Any]]
    category_ids: list[int]
    names: list[str]
    content: bytes

    def rows(self, iou_type: str) -> list[dict[str, Any]]:
        """Annotations of the images, new ones at each call: an evaluation changes them.

        Args:
            iou_type: 'bbox' or 'segm'.
        """
        known = {image['id'] for image in self.images}
        rows = [row for row in pickle.loads(self.content) if row['image_id'] in known]
        if iou_type == 'bbox':
            for row in rows:
                row.pop('segmentation', None)
        return rows


def _file_name(entry: Mapping) -> str:
    """What the image is called in messages; one of the two is a text."""
    return next(entry[key] for key in ('file_name', 'coco_url') if isinstance(entry.get(key), str))


def _has_mask(row: Any) -> bool:
    return isinstance(row, dict) and bool(row.get('segmentation'))
