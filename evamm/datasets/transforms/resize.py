"""Crop and resize by torch's integer filter: Pillow's, but for the rounding of its weights."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.image import imresize
from mmpretrain.datasets import transforms

from evamm.registry import TRANSFORMS

BACKENDS = ('torch', 'pillow', 'cv2')
TORCH_FILTERS = ('bilinear', 'bicubic')


def resize_image(
    image: np.ndarray, size: tuple[int, int], interpolation: str, backend: str
) -> np.ndarray:
    """Resize a picture of 8 bits.

    'torch' and 'pillow' compute the same filter, widened when shrinking (antialiasing), the width
    first and then the height. Pillow rounds its weights to 22 bits, torch to at most 15: in
    photographs below one value in a hundred differs, by one grey level; in noise by two at most.
    (Pillow 13 takes the height first where it shrinks while the width grows, which shows where a
    bicubic filter overshoots.) torch takes half the time or less: it uses the vector unit, and
    Pillow copies to four bytes per pixel and back. 'cv2' does not antialias.

    Args:
        image: uint8 [H, W, C] or [H, W], any strides.
        size: (height, width) of the result.
        interpolation: 'bilinear' or 'bicubic'; for 'pillow' and 'cv2' also mmcv's other names.
        backend: 'torch', 'pillow' or 'cv2'.

    Returns:
        uint8 [height, width, C] or [height, width], contiguous.
    """
    if backend != 'torch':
        return imresize(image, size[::-1], interpolation=interpolation, backend=backend)
    if image.shape[:2] == tuple(size):
        return np.ascontiguousarray(image)
    flat = np.ascontiguousarray(image if image.ndim == 3 else image[..., None])
    pixels = torch.from_numpy(flat).permute(2, 0, 1)[None]  # [1, C, H, W], channels last in memory
    pixels = F.interpolate(
        pixels, size=size, mode=interpolation, antialias=True, align_corners=False
    )
    # OpenCV interleaves the channels ten times as fast as NumPy copies the transposed array.
    return cv2.merge(list(pixels[0].numpy())).reshape(*size, *image.shape[2:])


def _check(name: str, interpolation: str, backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f'{name}: `backend` must be one of {BACKENDS}, found {backend!r}')
    if backend == 'torch' and interpolation not in TORCH_FILTERS:
        raise ValueError(
            f'{name}: `interpolation` must be one of {TORCH_FILTERS} with backend "torch", found '
            f'{interpolation!r}; backend "pillow" has more'
        )


@TRANSFORMS.register_module()
class RandomResizedCrop(transforms.RandomResizedCrop):
    """mmpretrain's RandomResizedCrop, the same crops of the same random numbers, resized faster.

    Args:
        scale: Side of the square result in pixels, or its (height, width).
        crop_ratio_range: Smallest and largest part of the image's area that a crop covers.
        aspect_ratio_range: Smallest and largest width of a crop over its height.
        max_attempts: Draws before the centre of the image is taken.
        interpolation: See :func:`resize_image`.
        backend: See :func:`resize_image`.
    """

    def __init__(
        self,
        scale: int | Sequence[int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        interpolation: str = 'bicubic',
        backend: str = 'torch',
    ) -> None:
        _check('RandomResizedCrop', interpolation, backend)
        super().__init__(
            scale=scale,
            crop_ratio_range=crop_ratio_range,
            aspect_ratio_range=aspect_ratio_range,
            max_attempts=max_attempts,
            interpolation=interpolation,
            backend=backend,
        )

    def transform(self, results: dict) -> dict:
        image = results['img']
        top, left, height, width = self.rand_crop_params(image)
        crop = image[top : top + height, left : left + width]
        results['img'] = resize_image(crop, tuple(self.scale), self.interpolation, self.backend)
        results['img_shape'] = results['img'].shape[:2]
        return results


@TRANSFORMS.register_module()
class ResizeEdge(transforms.ResizeEdge):
    """mmpretrain's ResizeEdge, faster.

    Args:
        scale: Length of the edge after resizing, in pixels.
        edge: 'short', 'long', 'width' or 'height'.
        interpolation: See :func:`resize_image`.
        backend: See :func:`resize_image`.
    """

    def __init__(
        self,
        scale: int,
        edge: str = 'short',
        interpolation: str = 'bicubic',
        backend: str = 'torch',
    ) -> None:
        _check('ResizeEdge', interpolation, backend)
        super().__init__(scale=scale, edge=edge, backend=backend, interpolation=interpolation)

    def _resize_img(self, results: dict) -> None:
        image = results['img']
        size = results['scale'][::-1]  # (height, width)
        results['img'] = resize_image(image, size, self.interpolation, self.backend)
        results['img_shape'] = size
        results['scale_factor'] = (size[1] / image.shape[1], size[0] / image.shape[0])
