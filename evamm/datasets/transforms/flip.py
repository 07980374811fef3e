"""Flipping into fresh memory."""

from bisect import bisect
from itertools import accumulate

import cv2
import numpy as np
from mmcv import transforms
from mmcv.transforms.utils import cache_randomness

from evamm.registry import TRANSFORMS

_CODES = {'horizontal': 1, 'vertical': 0, 'diagonal': -1}


@TRANSFORMS.register_module()
class RandomFlip(transforms.RandomFlip):
    """mmcv's RandomFlip of an image, the same flips of the same random numbers.

    mmcv returns a view that runs backwards, which OpenCV's functions copy value by value: thirty
    times the time of the flip itself. Boxes, key points and label maps are flipped as in mmcv.
    """

    # Of this class alone: the decorator would add the name to mmcv's list a second time, and what
    # shares random numbers would count every draw twice.
    _methods_with_randomness: list[str] = []

    @cache_randomness
    def _choose_direction(self) -> str | None:
        """What `np.random.choice` makes of the same random number, without its arrays."""
        directions = [self.direction] if isinstance(self.direction, str) else list(self.direction)
        if isinstance(self.prob, list):
            shares = [*self.prob, 1 - sum(self.prob)]
        else:
            shares = [self.prob / len(directions)] * len(directions) + [1.0 - self.prob]
        bounds = list(accumulate(shares))
        drawn = np.random.random_sample()
        return [*directions, None][bisect([bound / bounds[-1] for bound in bounds], drawn)]

    def _flip(self, results: dict) -> None:
        flipped = cv2.flip(results['img'], _CODES[results['flip_direction']])
        super()._flip(results)
        results['img'] = flipped.reshape(results['img'].shape)  # OpenCV drops a single channel
