"""A fixed set of crops per image, so that what a teacher sees in them can be computed once."""

import random

from mmcv.transforms import BaseTransform, Compose

from evamm.registry import TRANSFORMS

from ..feature_cache import path_key
from ..samplers.generators import derive_seed, preserved_generators, seed_generators


@TRANSFORMS.register_module()
class SeededCrops(BaseTransform):
    """Makes one of ``num_views`` fixed versions of an image.

    The random transforms inside are seeded with (seed, image, view), so a view of an image is the
    same in every epoch, run and process; which view a sample gets is drawn as ever. The generators
    are given back as they were, so the transforms that follow draw what they would draw anyway.

    A config that computes teacher features and one that reads them from a cache have the same
    pipeline up to here, hence the same images.

    Adds ``crop_view`` and ``crops``, this transform as text. A sample that has a view already
    (``tools/cache_teacher.py``) keeps it.

    Args:
        transforms: Flip, crop and whatever else the teacher sees.
        num_views: Versions per image.
        seed: Seed of all versions.
        root: Beginning of the image paths that is left out of their hash, for data that moves.

    Raises:
        ValueError: If ``num_views`` is less than one or a path does not begin with ``root``.
    """

    def __init__(
        self, transforms: list[dict], num_views: int = 1, seed: int = 0, root: str = ''
    ) -> None:
        if num_views < 1:
            raise ValueError(f'num_views={num_views} must be 1 or more.')
        self.transforms = Compose(transforms)
        self.num_views = num_views
        self.seed = seed
        self.root = root
        self.text = repr(self)

    def transform(self, results: dict) -> dict | None:
        """Draws a view and makes it."""
        if 'crop_view' not in results:
            results['crop_view'] = random.randrange(self.num_views)
        results['crops'] = self.text
        key = path_key(relative_path(results['img_path'], self.root))
        seed = derive_seed(self.seed, key - (1 << 63), results['crop_view'])
        with preserved_generators():
            seed_generators(seed)
            return self.transforms(results)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_views={self.num_views}, seed={self.seed}, '
            f'root={self.root!r}, transforms={self.transforms})'
        )


def relative_path(path: str, root: str) -> str:
    """The part of a path after ``root``.

    Raises:
        ValueError: The path does not begin with it.
    """
    if not path.startswith(root):
        raise ValueError(f'{path} does not begin with root={root!r} of the crops and features.')
    return path[len(root) :].lstrip('/') if root else path
