"""Objects365 v2."""

import os
from collections.abc import Mapping

from mmdet import datasets

from evamm.registry import DATASETS

from .coco import CocoDataset

# Listed in the annotation files, but in no archive of images.
_WITHOUT_FILE = frozenset(
    (
        'patch6/objects365_v1_00320532.jpg',
        'patch6/objects365_v1_00320534.jpg',
        'patch16/objects365_v2_00908726.jpg',
    )
)


@DATASETS.register_module()
class Objects365V2Dataset(CocoDataset):
    """Objects365 v2: 365 classes, boxes only.

    `data_prefix.img` is the folder of patch0, patch1, ... Training and validation set together,
    which EVA-02 is trained on, are two of these in a ConcatDataset; their labels agree, although
    the files list the categories in different orders.

    Arguments are those of :class:`CocoDataset`.
    """

    METAINFO = datasets.Objects365V2Dataset.METAINFO
    CLASSES_BY_ID = True

    def image_path(self, entry: Mapping) -> str | None:
        path = patch_path(entry['file_name'])
        return None if path in _WITHOUT_FILE else os.path.join(self.data_prefix['img'], path)


def patch_path(file_name: str) -> str:
    """Folder and name of an image: the files have 'images/v1/patch8/name.jpg'."""
    return '/'.join(file_name.split('/')[-2:])
