"""Cutting a border of fixed width."""

from mmcv.transforms import BaseTransform

from evamm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CropBorder(BaseTransform):
    """Cut the same number of pixels off every side of ``img`` [H, W, C].

    ObjectNet's images have a red border; its authors cut 2 pixels. The official EVA evaluation
    does not.

    Args:
        pixels: Width of the border, at least 1.
    """

    def __init__(self, pixels: int) -> None:
        if pixels < 1:
            raise ValueError(f'CropBorder: `pixels` must be at least 1, found {pixels}')
        self.pixels = pixels

    def transform(self, results: dict) -> dict:
        height, width = results['img'].shape[:2]
        if min(height, width) <= 2 * self.pixels:
            raise ValueError(
                f'CropBorder: {results.get("img_path", "the image")} is {width}x{height}, too '
                f'small to cut {self.pixels} pixels off every side'
            )
        results['img'] = results['img'][self.pixels : -self.pixels, self.pixels : -self.pixels]
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(pixels={self.pixels})'
