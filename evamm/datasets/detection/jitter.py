"""Large-scale jitter: flip, resize within a wide range, crop."""

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from PIL import Image

from evamm.registry import TRANSFORMS

from ..transforms.resize import BACKENDS, resize_image
from .polygons import Polygons, clip_polygons, polygon_boxes

# An instance whose box is not wider and higher than this is gone (detectron2's
# filter_empty_instances).
_MIN_SIDE = 1e-5


@TRANSFORMS.register_module()
class RandomDetFlip(BaseTransform):
    """Flip an image with its boxes and masks from left to right.

    Source: detectron2's RandomFlip; the same flips of the same random numbers. The image is
    copied once, into contiguous memory.

    Args:
        prob: Probability of a flip.
    """

    def __init__(self, prob: float = 0.5) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'RandomDetFlip: `prob` must be between 0 and 1, found {prob}')
        self.prob = prob

    def transform(self, results: dict) -> dict:
        results['flip'] = bool(np.random.uniform() < self.prob)
        results['flip_direction'] = 'horizontal' if results['flip'] else None
        if not results['flip']:
            return results
        image = results['img']
        results['img'] = cv2.flip(image, 1).reshape(image.shape)
        if 'gt_bboxes' in results:
            boxes = results['gt_bboxes'].tensor
            width = image.shape[1]
            flipped = torch.stack(
                [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1
            )
            results['gt_bboxes'] = HorizontalBoxes(flipped)
        if 'gt_masks' in results:
            results['gt_masks'] = results['gt_masks'].flip('horizontal')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'


@TRANSFORMS.register_module()
class LargeScaleJitter(BaseTransform):
    """Resize an image by a random scale and crop it where it became too large.

    The image is made to fit, with its proportions, into a box of `scale * size`; what reaches
    beyond `size` is cut off at one random position between both ends. Where it is smaller nothing
    is added: batches are padded by the data preprocessor. Instances that are gone are dropped; an
    image may be left with none.

    Source: ResizeScale and FixedSizeCrop(pad=False) of detectron2, DatasetMapper and
    filter_empty_instances; the same crops of the same random numbers.

    Args:
        size: Side of the square in pixels, or its (height, width).
        scale_range: Smallest and largest scale.
        recompute_boxes: Put boxes tightly around what is left of the masks, where there are
            masks; else boxes are cut to the crop.
        interpolation: See :func:`evamm.datasets.transforms.resize.resize_image`.
        backend: See there. 'pillow' gives the bits of the official code, 'torch' the same but for
            one grey level in few pixels, in half the time.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale_range: tuple[float, float] = (0.1, 2.0),
        recompute_boxes: bool = True,
        interpolation: str = 'bilinear',
        backend: str = 'torch',
    ) -> None:
        low, high = scale_range
        if not 0 < low <= high:
            raise ValueError(
                'LargeScaleJitter: `scale_range` must be (smallest, largest), both above 0, found '
                f'{tuple(scale_range)}'
            )
        if backend not in BACKENDS:
            raise ValueError(
                f'LargeScaleJitter: `backend` must be one of {BACKENDS}, found {backend!r}'
            )
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.scale_range = (low, high)
        self.recompute_boxes = recompute_boxes
        self.interpolation = interpolation
        self.backend = backend

    def transform(self, results: dict) -> dict:
        image = results['img']
        height, width = image.shape[:2]
        new_size = scaled_size((height, width), self.size, np.random.uniform(*self.scale_range))
        top, left = crop_offset(new_size, self.size, np.random.uniform(0.0, 1.0))
        image = resize_image(image, new_size, self.interpolation, self.backend)
        image = image[top : top + self.size[0], left : left + self.size[1]]
        results['img'] = np.ascontiguousarray(image)
        results['img_shape'] = image.shape[:2]
        results['scale_factor'] = (new_size[1] / width, new_size[0] / height)
        self._transform_instances(results, new_size, (top, left))
        return results

    def _transform_instances(
        self, results: dict, new_size: tuple[int, int], offset: tuple[int, int]
    ) -> None:
        keep = None
        if 'gt_bboxes' in results:
            boxes = results['gt_bboxes'].tensor.double().numpy()
            boxes = boxes * np.tile(results['scale_factor'], 2) - np.tile(offset[::-1], 2)
            bounds = np.tile(results['img_shape'][::-1], 2)
            boxes = np.clip(boxes, 0, bounds).astype(np.float32)
            keep = _has_area(boxes)
        if 'gt_masks' in results:
            masks = self._transform_masks(results, new_size, offset)
            mask_boxes, present = _mask_boxes(masks)
            if keep is None or self.recompute_boxes:
                boxes, keep = mask_boxes, _has_area(mask_boxes) & present
            else:
                keep &= present
            kept = [mask for mask, wanted in zip(masks, keep) if wanted]
            results['gt_masks'] = type(results['gt_masks'])(kept, *results['img_shape'])
        if keep is None:
            return
        if 'gt_bboxes' in results:
            results['gt_bboxes'] = HorizontalBoxes(torch.from_numpy(boxes[keep]))
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            if key in results:
                results[key] = results[key][keep]

    def _transform_masks(
        self, results: dict, new_size: tuple[int, int], offset: tuple[int, int]
    ) -> list[np.ndarray] | list[Polygons]:
        masks = results['gt_masks']
        top, left = offset
        bottom, right = top + self.size[0], left + self.size[1]
        if isinstance(masks, BitmapMasks):
            return [resize_nearest(mask, new_size)[top:bottom, left:right] for mask in masks.masks]
        scale = np.asarray(results['scale_factor'])
        scaled = [
            [(polygon.reshape(-1, 2) * scale).reshape(-1) for polygon in polygons]
            for polygons in masks.masks
        ]
        clipped = clip_polygons(scaled, left, top, right, bottom)
        return [
            [(polygon.reshape(-1, 2) - (left, top)).reshape(-1) for polygon in polygons]
            for polygons in clipped
        ]

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, scale_range={self.scale_range}, '
            f'recompute_boxes={self.recompute_boxes}, interpolation={self.interpolation!r}, '
            f'backend={self.backend!r})'
        )


def scaled_size(
    image_size: tuple[int, int], target: tuple[int, int], scale: float
) -> tuple[int, int]:
    """Size of an image that fits, with its proportions, into `scale * target`.

    Args:
        image_size: (height, width).
        target: (height, width).
        scale: Any positive number.

    Returns:
        (height, width), rounded half to even, at least one pixel.
    """
    ratio = min(target[0] * scale / image_size[0], target[1] * scale / image_size[1])
    return max(1, round(image_size[0] * ratio)), max(1, round(image_size[1] * ratio))


def crop_offset(
    image_size: tuple[int, int], crop_size: tuple[int, int], position: float
) -> tuple[int, int]:
    """Top left corner of a crop.

    Args:
        image_size: (height, width).
        crop_size: (height, width).
        position: 0 for the top left end of what is too large, 1 for the bottom right end; one
            number for both directions, as in the official code.

    Returns:
        (top, left).
    """
    height, width = (max(0, side - crop) for side, crop in zip(image_size, crop_size))
    return round(height * position), round(width * position)


def resize_nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask as Pillow does, which takes the pixel at the centre.

    Args:
        mask: uint8 [H, W].
        size: (height, width).
    """
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))


def _has_area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2] > _MIN_SIDE).all(1)


def _mask_boxes(masks: list[np.ndarray] | list[Polygons]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [N, 4] around masks, and which instances have a mask [N]."""
    if not masks or isinstance(masks[0], list):
        return polygon_boxes(masks), np.array([len(polygons) > 0 for polygons in masks], bool)
    boxes = np.zeros((len(masks), 4), np.float32)
    for number, mask in enumerate(masks):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(columns):
            boxes[number] = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return boxes, boxes[:, 2] > 0
