"""LVIS v1, without the `lvis` package."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mmdet import datasets

from evamm.registry import DATASETS

from .coco import CocoDataset


@DATASETS.register_module()
class LVISV1Dataset(CocoDataset):
    """LVIS v1: 1203 classes on images of COCO, not all of them annotated everywhere.

    An image's folder (train2017, val2017) is read from its `coco_url`: `data_prefix.img` is the
    folder above. Entries carry `neg_category_ids` (categories known to be absent) and
    `not_exhaustive_category_ids`; `metainfo` carries `frequency` ('r', 'c' or 'f') and
    `image_count` of every class where the file has them.

    Arguments are those of :class:`CocoDataset`.
    """

    METAINFO = datasets.LVISV1Dataset.METAINFO
    CLASSES_BY_ID = True

    def image_path(self, entry: Mapping) -> str | None:
        if 'coco_url' not in entry:
            return super().image_path(entry)
        return os.path.join(self.data_prefix['img'], *entry['coco_url'].split('/')[-2:])

    def _image_info(self, entry: Mapping) -> dict[str, Any]:
        keys = ('neg_category_ids', 'not_exhaustive_category_ids')
        return {key: entry.get(key, []) for key in keys}

    def _note_categories(self, entries: Sequence[Mapping]) -> None:
        for key in ('frequency', 'image_count'):
            if all(key in entry for entry in entries):
                self._metainfo[key] = [entry[key] for entry in entries]
