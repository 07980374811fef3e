"""Square batches."""

from mmdet.models.data_preprocessors import DetDataPreprocessor
from torch import Tensor

from evamm.registry import MODELS


@MODELS.register_module()
class SquarePadDetDataPreprocessor(DetDataPreprocessor):
    """mmdet's ``DetDataPreprocessor`` with every image padded to the same square.

    Zeros at the right and at the bottom, after normalisation. Images that are larger make the
    square of this batch larger. Official: ``square_pad`` and ``size_divisibility``,
    ``detectron2/structures/image_list.py``.

    Args:
        pad_size: Side of the square in pixels.
        mean: Of the channels in the order of the network (RGB).
        std: The same.
        bgr_to_rgb: The pipeline reads BGR.
        pad_mask: Pad the masks, too.
        boxtype2tensor: Boxes as tensors.
        non_blocking: Copy to the device without waiting.
        batch_augments: mmdet's.
        size_divisor: Larger squares have a side that is a multiple of this many pixels: whole
            cells of the coarsest map that is made from patches (16 pixels, and half of them).

    Raises:
        ValueError: If ``pad_size`` or ``size_divisor`` is no positive number.
    """

    def __init__(
        self,
        pad_size: int,
        mean: tuple[float, ...] = (123.675, 116.28, 103.53),
        std: tuple[float, ...] = (58.395, 57.12, 57.375),
        *,
        bgr_to_rgb: bool = True,
        pad_mask: bool = False,
        boxtype2tensor: bool = True,
        non_blocking: bool = False,
        batch_augments: list[dict] | None = None,
        size_divisor: int = 32,
    ) -> None:
        super().__init__(
            mean=mean,
            std=std,
            bgr_to_rgb=bgr_to_rgb,
            pad_mask=pad_mask,
            boxtype2tensor=boxtype2tensor,
            non_blocking=non_blocking,
            batch_augments=batch_augments,
        )
        for name, value in (('pad_size', pad_size), ('size_divisor', size_divisor)):
            if value < 1:
                raise ValueError(f'SquarePadDetDataPreprocessor: {name}={value} must be positive.')
        self.pad_size = pad_size
        self.size_divisor = size_divisor

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalises, pads and stacks images [3, h, w] to [B, 3, S, S]."""
        images = data['inputs']
        sides = images.shape[-2:] if isinstance(images, Tensor) else None
        if sides is None:
            sides = [side for image in images for side in image.shape[-2:]]
        side = max(sides)
        if side <= self.pad_size:
            side = self.pad_size
        else:
            side = -(-side // self.size_divisor) * self.size_divisor
        # Every side is padded to the next multiple of the divisor: to the divisor itself.
        self.pad_size_divisor = side
        return super().forward(data, training)
