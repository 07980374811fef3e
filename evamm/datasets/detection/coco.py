"""Detection data sets in COCO's format."""

import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet import datasets
from mmengine import fileio
from mmengine.logging import print_log

from evamm.registry import DATASETS

from ..checks import DataError
from ..samplers.damaged_images import damage_in
from .annotations import (
    NO_CLASS,
    Annotations,
    categories_of,
    no_garbage_collection,
    read_coco_json,
)
from .bad_data import BadData, check_settings
from .loading import image_sizes


@DATASETS.register_module()
class CocoDataset(datasets.CocoDataset):
    """mmdet's CocoDataset with checks: COCO, or data of your own in its format.

    What mmdet drops or misreads without a word is counted and reported: annotations without area,
    outside of their image, of unknown images or categories, with masks that cannot be read;
    images that are listed twice or do not exist. Images whose size is not the stated one are
    found when they are loaded, and replaced by others like damaged ones. Annotations that share
    their id are counted, reported and kept.

    Boxes narrower than a pixel are kept, as in detectron2. Labels follow the order of
    `metainfo.classes` (mmdet's follow the order of the file). Categories that are none of the
    classes are left out without a report.

    Args:
        ann_file: Annotation file, below `data_root`.
        data_root: Folder of the data set.
        data_prefix: Folder of the images as `dict(img='...')`, below `data_root`.
        metainfo: `dict(classes=(...))`; the classes of COCO if None.
        filter_cfg: `filter_empty_gt=True` leaves out training images without an instance that is
            no crowd; `min_size` those with a shorter side.
        bad_data: 'skip' leaves out and counts what cannot be used; 'stop' allows nothing.
        max_bad: Largest share of the annotations, or of the images, that may be bad.
        check_files: Look whether the images exist (one listing of every folder).
        pipeline: Transforms.
        test_mode: Keep every image.
        indices: Use only the first so many images, or those with these numbers.
        serialize_data: Keep entries as bytes, which processes share.
        lazy_init: Read the file at the first use.
        max_refetch: Tries to find a sample that the pipeline does not reject.
        backend_args: Arguments of the file backend, see mmengine.fileio.

    Raises:
        DataError: The file cannot be used, or too much of it is bad; says what and where.
    """

    # The classes are all categories of the file, in the order of their ids.
    CLASSES_BY_ID = False

    def __init__(
        self,
        ann_file: str = '',
        data_root: str | None = '',
        data_prefix: Mapping | None = None,
        metainfo: Mapping | None = None,
        filter_cfg: dict | None = None,
        bad_data: str = 'skip',
        max_bad: float = 0.01,
        check_files: bool = True,
        pipeline: Sequence[Any] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
        max_refetch: int = 1000,
        backend_args: dict | None = None,
    ) -> None:
        check_settings(type(self).__name__, bad_data, max_bad)
        data_prefix = data_prefix or {'img': ''}
        if not isinstance(data_prefix, Mapping) or not isinstance(data_prefix.get('img'), str):
            raise ValueError(
                f"{type(self).__name__}: `data_prefix` must be dict(img='FOLDER'), found "
                f'{data_prefix!r}'
            )
        self.bad_data = bad_data
        self.max_bad = max_bad
        self.check_files = check_files
        self._own_classes = 'classes' in (metainfo or {})
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=dict(data_prefix),
            metainfo=metainfo,
            filter_cfg=filter_cfg,
            pipeline=list(pipeline),
            test_mode=test_mode,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=lazy_init,
            max_refetch=max_refetch,
            backend_args=backend_args,
        )

    def load_data_list(self) -> list[dict]:
        """Entries of all usable images."""
        if not self.ann_file:
            raise DataError(
                f"{type(self).__name__} has no `ann_file`: name an annotation file in COCO's "
                'format, below data_root.'
            )
        data = read_coco_json(self.ann_file, self.backend_args)
        self.cat_ids, entries = categories_of(
            self.ann_file,
            data,
            self.metainfo['classes'],
            by_id=self.CLASSES_BY_ID and not self._own_classes,
        )
        self.cat2label = {number: label for label, number in enumerate(self.cat_ids)}
        # Evaluation asks for them: labels need not follow names.
        self._metainfo['category_ids'] = self.cat_ids
        self._note_categories(entries)
        labels = {entry['id']: NO_CLASS for entry in data['categories']} | self.cat2label
        bad = BadData(self.ann_file, self.bad_data, self.max_bad)
        annotations = Annotations(
            data,
            labels,
            self.image_path,
            bad,
            with_mask=self._loads_masks(),
            check_files=self.check_files and self._is_local(),
        )
        annotations.count_repeated_ids()
        data_list = [
            {
                'img_path': image.path,
                'img_id': image.entry['id'],
                'seg_map_path': None,
                'height': image.entry['height'],
                'width': image.entry['width'],
                'instances': annotations.instances(image),
                **self._image_info(image.entry),
            }
            for image in annotations.images()
        ]
        bad.conclude(len(data['annotations']), len(data['images']))
        return data_list

    def image_path(self, entry: Mapping) -> str | None:
        """Where the image of an entry is; None for one that is known to have no file."""
        return os.path.join(self.data_prefix['img'], entry['file_name'])

    def _image_info(self, entry: Mapping) -> dict[str, Any]:
        """What else is known of an image."""
        return {}

    def _note_categories(self, entries: Sequence[Mapping]) -> None:
        """What else is known of the classes goes into `metainfo`."""

    def _loads_masks(self) -> bool:
        """Masks are not kept where no transform loads them."""
        return any(getattr(step, 'with_mask', False) for step in self.pipeline.transforms)

    def _is_local(self) -> bool:
        backend = (self.backend_args or {}).get('backend', 'local')
        return backend in ('local', 'disk') and '://' not in str(self.data_prefix['img'])

    def filter_data(self) -> list[dict]:
        """Images that are trained on, see `filter_cfg`.

        Raises:
            DataError: There are none.
        """
        kept = self.data_list if self.test_mode else self._filtered()
        if not kept:
            raise DataError(
                f'{self.ann_file}: none of its {len(self.data_list)} usable images is left after '
                f'filter_cfg={self.filter_cfg}; correct the file or the filter.'
            )
        return kept

    def _filtered(self) -> list[dict]:
        filter_cfg = self.filter_cfg or {}
        min_size = filter_cfg.get('min_size', 0)
        kept = [info for info in self.data_list if min(info['width'], info['height']) >= min_size]
        taught = [info for info in kept if _has_instance(info)]
        if len(taught) < len(kept):
            leaves_out = filter_cfg.get('filter_empty_gt', False)
            print_log(
                f'{self.ann_file}: {len(kept) - len(taught)} of {len(kept)} images show nothing to '
                f'learn, or crowds only; they are {"left out" if leaves_out else "background"}.',
                logger='current',
            )
            kept = taught if leaves_out else kept
        return kept

    def full_init(self) -> None:
        """Read the annotation file."""
        if not self._fully_initialized:
            self._labels_of_images = None
            with no_garbage_collection():
                super().full_init()

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        """mmengine's, without a collection of garbage, which takes half a second in any process."""
        self._labels_of_images = _label_sets(self.data_list)
        entries = [pickle.dumps(info, protocol=4) for info in self.data_list]
        self.data_list.clear()
        ends = np.cumsum([len(entry) for entry in entries])
        return np.frombuffer(b''.join(entries), np.uint8), ends

    def labels_of_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Which classes every image has.

        Returns:
            Labels image after image, each once, without those that only crowds have; and where
            the labels of each image begin, with the end of the last one behind them.
        """
        self.full_init()
        if self._labels_of_images is None:
            self._labels_of_images = _label_sets(self.data_list)
        return self._labels_of_images

    def find_damage(self, index: int) -> tuple[str, str] | None:
        """Path of an image and why it cannot be used; None if it can, or must not be skipped."""
        if self.bad_data == 'stop':
            return None
        info = self.get_data_info(index)
        content = fileio.get(info['img_path'], backend_args=self.backend_args)
        if (reason := damage_in(content)) is not None:
            return info['img_path'], reason.replace(info['img_path'], '')
        sizes = image_sizes(content)
        if (info['height'], info['width']) in sizes:
            return None
        height, width = sizes[0]
        return info['img_path'], (
            f'it is {width} x {height} pixels, its annotations are for {info["width"]} x '
            f'{info["height"]}'
        )


def _has_instance(info: Mapping) -> bool:
    return any(not instance['ignore_flag'] for instance in info['instances'])


def _label_sets(data_list: Sequence[Mapping]) -> tuple[np.ndarray, np.ndarray]:
    sets = [
        sorted({entry['bbox_label'] for entry in info['instances'] if not entry['ignore_flag']})
        for info in data_list
    ]
    starts = np.concatenate([[0], np.cumsum([len(labels) for labels in sets])]).astype(np.int64)
    flat = np.fromiter((label for labels in sets for label in labels), np.int32, starts[-1])
    return flat, starts
