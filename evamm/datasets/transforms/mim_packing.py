"""Packing for masked image modelling."""

from collections.abc import Sequence

import numpy as np
import torch

from evamm.registry import TRANSFORMS

from .packing import PackInputs


@TRANSFORMS.register_module()
class PackMIMInputs(PackInputs):
    """:class:`evamm.PackInputs` with the mask and, from a feature cache, the target.

    ``mask`` (bool [h, w]) and ``target`` stay NumPy arrays: the data preprocessor copies tensors
    to the device and leaves arrays in host memory, where the model turns masks into indices. An
    ``img`` that is a list (:class:`evamm.TwoSizeRandomResizedCrop`) becomes a list of tensors.

    Args:
        algorithm_keys: Further keys for the data sample.
        meta_keys: Keys that become its meta information.
    """

    def __init__(
        self,
        algorithm_keys: Sequence[str] = (),
        meta_keys: Sequence[str] = ('sample_idx', 'img_path', 'ori_shape', 'img_shape'),
    ) -> None:
        super().__init__(
            algorithm_keys=('mask', 'target', *algorithm_keys), meta_keys=tuple(meta_keys)
        )

    @staticmethod
    def format_input(input_: np.ndarray | list[np.ndarray]) -> torch.Tensor | list[torch.Tensor]:
        if isinstance(input_, list):
            return [PackInputs.format_input(image) for image in input_]
        return PackInputs.format_input(input_)
