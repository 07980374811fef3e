"""Targets of masked image modelling from a feature cache."""

import os
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform

from evamm.registry import TRANSFORMS

from ..feature_cache import FeatureCache, FeatureCacheError
from .seeded_crops import relative_path


@TRANSFORMS.register_module()
class LoadTeacherFeatures(BaseTransform):
    """Reads what the teacher computed for this crop (``tools/cache_teacher.py``).

    Comes after :class:`SeededCrops`, which chooses the crop, and after the mask, so that only the
    features of masked patches travel from the worker to the model.

    Adds ``target``: float16 [masked patches, dims] in row-major order, or [patches, dims].

    Args:
        cache: Folder of the cache; None leaves samples as they are, for a config that names the
            folder only when there is one.
        masked_only: Read the features of masked patches only.
        root: As in ``SeededCrops``.

    Raises:
        FeatureCacheError: The cache is incomplete, was written for other crops or does not have the
            image.
        KeyError: The sample has no ``crop_view`` or no ``mask``.
    """

    def __init__(
        self, cache: str | os.PathLike | None = None, masked_only: bool = True, root: str = ''
    ) -> None:
        self.folder = cache
        self._cache = None
        if cache is not None and Path(cache).exists():
            self._cache = FeatureCache(cache)
        self.masked_only = masked_only
        self.root = root

    @property
    def cache(self) -> FeatureCache:
        """The cache.

        Opened at once, before the workers of a loader start, if the folder is there. A config can
        be built without it.

        Raises:
            FeatureCacheError: It is not there, or not complete.
        """
        if self._cache is None:
            self._cache = FeatureCache(self.folder)
        return self._cache

    def transform(self, results: dict) -> dict:
        """Adds the target to the sample."""
        if self.folder is None:
            return results
        for key, home in (('crop_view', 'evamm.SeededCrops'), ('mask', 'evamm.BlockMasking')):
            if key not in results and (key == 'crop_view' or self.masked_only):
                raise KeyError(f'LoadTeacherFeatures needs {key!r}: put {home} before it.')
        if results['crops'] != self.cache.meta.crops:
            raise FeatureCacheError(
                f'{self.cache.folder}: was written for other crops than the pipeline makes; write '
                'it again with this config, or use the config it was written with.\n'
                f'cache:    {self.cache.meta.crops}\npipeline: {results["crops"]}'
            )
        tokens = np.ravel(results['mask']) if self.masked_only else None
        path = relative_path(results['img_path'], self.root)
        results['target'] = self.cache.read(path, results['crop_view'], tokens)
        return results

    def __repr__(self) -> str:
        folder = None if self.folder is None else str(self.folder)
        return (
            f'{type(self).__name__}(cache={folder!r}, masked_only={self.masked_only}, '
            f'root={self.root!r})'
        )
