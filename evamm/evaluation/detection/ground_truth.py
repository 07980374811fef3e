"""Annotation files as detections are compared with them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from evamm.datasets.checks import DataError
from evamm.datasets.detection.annotations import (
    categories_of,
    no_garbage_collection,
    read_coco_json,
)


class GroundTruth:
    """The annotations of some images.

    Args:
        ann_file: File in COCO's format.
        meta: `classes` of the data set and, where its labels do not follow names, `category_ids`.
        image_ids: Images that were predicted.
        backend_args: Arguments of the file backend.
        by_id: Without `category_ids`, the classes are all categories in the order of their ids.

    Raises:
        DataError: The file lacks a class, or an image that was predicted.
    """

    def __init__(
        self,
        ann_file: str,
        meta: Mapping[str, Any],
        image_ids: Collection,
        backend_args: dict | None = None,
        *,
        by_id: bool = False,
    ) -> None:
        self.ann_file = ann_file
        with no_garbage_collection():
            data = read_coco_json(ann_file, backend_args)
        category_ids = meta.get('category_ids')
        if category_ids is None:
            category_ids, _ = categories_of(ann_file, data, meta['classes'], by_id=by_id)
        self.category_ids = list(category_ids)
        entries = {entry['id']: entry for entry in data['categories']}
        lacking = [number for number in self.category_ids if number not in entries]
        if lacking:
            raise DataError(
                f'{ann_file} has no category {lacking[0]}, which the data set has: ann_file of the '
                'evaluator and of the data set must be the same file.'
            )
        self.categories = [entries[number] for number in self.category_ids]
        self.names = [entry['name'] for entry in self.categories]
        self.listed = len(data['images'])
        self.images = [image for image in data['images'] if image['id'] in image_ids]
        known = {image['id'] for image in self.images}
        unknown = [number for number in image_ids if number not in known]
        if unknown:
            raise DataError(
                f'{ann_file} does not list {len(unknown)} of {len(image_ids)} images that were '
                f'predicted, such as {unknown[0]!r}: ann_file of the evaluator and of the data set '
                'must be the same file.'
            )
        wanted = set(self.category_ids)
        self._rows = [
            row
            for row in data['annotations']
            if row.get('image_id') in known and row.get('category_id') in wanted
        ]

    def rows(self, iou_type: str) -> list[dict[str, Any]]:
        """Annotations of the images.

        Args:
            iou_type: 'bbox' or 'segm'.

        Raises:
            DataError: An annotation has no mask, and masks are compared.
        """
        keys: Sequence[str] = ('image_id', 'category_id', 'bbox')
        if iou_type == 'segm':
            keys = (*keys, 'segmentation')
        rows = []
        for row in self._rows:
            if not all(row.get(key) for key in keys[2:]):
                raise DataError(
                    f'{self.ann_file}: annotation {row.get("id")} has no {keys[-1]}, so '
                    f'{iou_type} cannot be evaluated; add it, or take {iou_type!r} out of '
                    '`metric` of the evaluator.'
                )
            taken = {key: row[key] for key in keys}
            area = row['area'] if 'area' in row else row['bbox'][2] * row['bbox'][3]
            rows.append({**taken, 'area': area, 'iscrowd': int(row.get('iscrowd', 0))})
        return rows
