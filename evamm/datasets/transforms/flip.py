"""Flipping into fresh memory."""

import cv2
from mmcv import transforms

from evamm.registry import TRANSFORMS

_CODES = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}


@TRANSFORMS.register_module()
class RandomFlip(transforms.RandomFlip):
    """mmcv's RandomFlip of an image, the same flips of the same random numbers.

    mmcv returns a view that runs backwards, which OpenCV's functions copy value by value: thirty
    times the time of the flip itself. Boxes, key points and label maps are flipped as in mmcv.
    """

    def _flip(self, results: dict) -> None:
        flipped = cv2.flip(results['img'], _CODES[results['flip_direction']])
        super()._flip(results)
        results['img'] = flipped.reshape(results['img'].shape)  # OpenCV drops a single channel
