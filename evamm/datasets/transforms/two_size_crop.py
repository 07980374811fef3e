"""One crop in two sizes: for the student and for the teacher."""

from collections.abc import Sequence

from evamm.registry import TRANSFORMS

from .resize import RandomResizedCrop, _check, resize_image


@TRANSFORMS.register_module()
class TwoSizeRandomResizedCrop(RandomResizedCrop):
    """:class:`evamm.RandomResizedCrop` that resizes the crop twice.

    ``img`` becomes the list [student, teacher]; both show the same part of the image. Where the
    sizes and filters are equal, one image serves both (``img`` stays one image): half the bytes
    from the workers to the model. Source: ``transforms.py`` of EVA-01 and EVA-02.

    Args:
        scale: Side of the student's image in pixels, or its (height, width).
        second_scale: The same of the teacher's.
        crop_ratio_range, aspect_ratio_range, max_attempts, interpolation, backend: See
            :class:`evamm.RandomResizedCrop`.
        second_interpolation: Filter of the teacher's image.
    """

    def __init__(
        self,
        scale: int | Sequence[int],
        second_scale: int | Sequence[int],
        crop_ratio_range: tuple[float, float] = (0.2, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        interpolation: str = 'bicubic',
        second_interpolation: str = 'bicubic',
        backend: str = 'torch',
    ) -> None:
        super().__init__(
            scale, crop_ratio_range, aspect_ratio_range, max_attempts, interpolation, backend
        )
        _check('TwoSizeRandomResizedCrop', second_interpolation, backend)
        if isinstance(second_scale, int):
            second_scale = (second_scale, second_scale)
        self.second_scale = tuple(second_scale)
        self.second_interpolation = second_interpolation

    def transform(self, results: dict) -> dict:
        image = results['img']
        top, left, height, width = self.rand_crop_params(image)
        crop = image[top : top + height, left : left + width]
        first = (tuple(self.scale), self.interpolation)
        second = (self.second_scale, self.second_interpolation)
        student = resize_image(crop, *first, self.backend)
        results['img'] = student
        if second != first:
            results['img'] = [student, resize_image(crop, *second, self.backend)]
        results['img_shape'] = student.shape[:2]
        return results
