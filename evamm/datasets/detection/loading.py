"""Instances of a data set as boxes, labels and masks."""

import io

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from PIL import Image
from pycocotools import mask as mask_util

from evamm.registry import TRANSFORMS

from ..checks import DataError
from .problems import is_polygon


class ImageSizeError(DataError):
    """An image is not of the size that its annotations were made for."""


@TRANSFORMS.register_module()
class LoadDetAnnotations(BaseTransform):
    """Boxes, labels and masks of the `instances` of a detection data set.

    Adds `gt_bboxes`, `gt_bboxes_labels`, `gt_ignore_flags` and, if asked for, `gt_masks`. Crowds
    are left out (detectron2's DatasetMapper trains without them). Masks stay polygons: they are
    small, exact at any scale, and rasterised only inside the boxes that are trained on. If a
    single one is given by runs (RLE), all of the image become bitmaps.

    Args:
        with_mask: Load masks.
        with_crowd: Keep crowds, with their ignore flag set.
    """

    def __init__(self, with_mask: bool = False, with_crowd: bool = False) -> None:
        self.with_mask = with_mask
        self.with_crowd = with_crowd

    def transform(self, results: dict) -> dict:
        """
        Raises:
            ImageSizeError: The image is not of the size that the annotation file states.
            ValueError: An instance has no mask.
        """
        check_size(results, results['ori_shape'])
        instances = [
            instance
            for instance in results['instances']
            if self.with_crowd or not instance.get('ignore_flag', 0)
        ]
        if self.with_mask:
            instances = _with_usable_masks(instances, results)
        boxes = [instance['bbox'] for instance in instances]
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        results['gt_bboxes'] = HorizontalBoxes(boxes)
        labels = [instance['bbox_label'] for instance in instances]
        results['gt_bboxes_labels'] = np.array(labels, np.int64)
        flags = [instance.get('ignore_flag', 0) for instance in instances]
        results['gt_ignore_flags'] = np.array(flags, bool)
        if self.with_mask:
            results['gt_masks'] = _masks_of(instances, *results['ori_shape'])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(with_mask={self.with_mask}, with_crowd={self.with_crowd})'


def check_size(info: dict, shape: tuple[int, int]) -> None:
    """Compare an image with what its data set says.

    Args:
        info: Has `height`, `width` and `img_path`, or not.
        shape: (height, width) of the image.

    Raises:
        ImageSizeError: They differ.
    """
    stated = (info.get('height') or shape[0], info.get('width') or shape[1])
    if tuple(shape[:2]) != stated:
        raise ImageSizeError(
            f'{info.get("img_path", "an image")} is {shape[1]} x {shape[0]} pixels, but its '
            f'annotations are for {stated[1]} x {stated[0]}; correct width and height in the '
            'annotation file, or load with orientation=True if the image was turned.'
        )


def image_sizes(content: bytes) -> list[tuple[int, int]]:
    """(height, width) of an image file, and of the image upright where they differ."""
    with Image.open(io.BytesIO(content)) as image:
        size = (image.height, image.width)
        turned = image.getexif().get(0x0112, 1) >= 5
    return [size, size[::-1]] if turned else [size]


def _with_usable_masks(instances: list[dict], results: dict) -> list[dict]:
    """Instances without those whose mask is of polygons with fewer than three points.

    Raises:
        ValueError: An instance has no mask.
    """
    usable = []
    for instance in instances:
        mask = instance.get('mask')
        if not mask:
            raise ValueError(
                f'{results.get("img_path", "an image")}: an instance has no mask, but the pipeline '
                'loads masks (LoadDetAnnotations(with_mask=True)); add a "segmentation" to every '
                'annotation, or train boxes only.'
            )
        if isinstance(mask, list):
            mask = [polygon for polygon in mask if is_polygon(polygon)]
        if mask:
            usable.append({**instance, 'mask': mask})
    return usable


def _masks_of(instances: list[dict], height: int, width: int) -> PolygonMasks | BitmapMasks:
    masks = [instance['mask'] for instance in instances]
    if all(isinstance(mask, list) for mask in masks):
        polygons = [[np.asarray(polygon, np.float64) for polygon in mask] for mask in masks]
        return PolygonMasks(polygons, height, width)
    return BitmapMasks([decode_mask(mask, height, width) for mask in masks], height, width)


def decode_mask(mask: list | dict, height: int, width: int) -> np.ndarray:
    """A segmentation in COCO's format as a bitmap.

    Args:
        mask: Polygons, runs, or compressed runs.
        height, width: Size of the image.

    Returns:
        uint8 [H, W].

    Raises:
        DataError: The runs are damaged, or those of an image of another size.
    """
    if isinstance(mask, list):
        runs = mask_util.merge(mask_util.frPyObjects(mask, height, width))
    elif isinstance(mask['counts'], list):
        runs = mask_util.frPyObjects(mask, height, width)
    else:
        runs = mask
    if tuple(runs['size']) != (height, width):
        raise DataError(
            f'a mask is of size {tuple(runs["size"])} (height, width), its image of size '
            f'{(height, width)}; correct "size" in the segmentation.'
        )
    try:
        return mask_util.decode(runs)
    except (TypeError, ValueError) as error:
        raise DataError(
            f'the runs {str(mask["counts"])[:40]!r} are no mask of {height} x {width} pixels '
            f'({error}); correct the segmentation.'
        ) from error
