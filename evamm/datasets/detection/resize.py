"""Resizing for evaluation."""

from mmcv.transforms import BaseTransform

from evamm.registry import TRANSFORMS

from ..transforms.resize import BACKENDS, resize_image


@TRANSFORMS.register_module()
class ResizeLongestEdge(BaseTransform):
    """Resize an image to a longer side of `size`, with its proportions.

    Only the image: annotations that are compared with predictions keep their coordinates, load
    them afterwards. Source: detectron2's ResizeShortestEdge(size, max_size=size).

    Args:
        size: Length of the longer side in pixels.
        interpolation: See :func:`evamm.datasets.transforms.resize.resize_image`.
        backend: See there.
    """

    def __init__(self, size: int, interpolation: str = 'bilinear', backend: str = 'torch') -> None:
        if backend not in BACKENDS:
            raise ValueError(
                f'ResizeLongestEdge: `backend` must be one of {BACKENDS}, found {backend!r}'
            )
        self.size = size
        self.interpolation = interpolation
        self.backend = backend

    def transform(self, results: dict) -> dict:
        image = results['img']
        height, width = image.shape[:2]
        new_size = longest_edge_size(height, width, self.size)
        results['img'] = resize_image(image, new_size, self.interpolation, self.backend)
        results['img_shape'] = new_size
        results['scale'] = new_size[::-1]
        results['scale_factor'] = (new_size[1] / width, new_size[0] / height)
        results['keep_ratio'] = True
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(size={self.size}, interpolation={self.interpolation!r}, '
            f'backend={self.backend!r})'
        )


def longest_edge_size(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of an image whose longer side becomes `size`.

    The order of the operations is detectron2's: the shorter side is made `size` first, then both
    shrink, and halves are rounded up.
    """
    short, long = min(height, width), max(height, width)
    scaled = size / short * long
    shrink = size / scaled if scaled > size else 1.0
    new_short, new_long = int(size * shrink + 0.5), int(scaled * shrink + 0.5)
    new_short = max(1, new_short)
    return (new_short, new_long) if height < width else (new_long, new_short)
