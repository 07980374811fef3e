"""Images of rare categories more often."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler

from evamm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RepeatFactorSampler(InfiniteSampler):
    """An endless stream in which images of rare categories come more often.

    A category in a share f of the images has the factor max(1, sqrt(threshold / f)), an image the
    largest factor of its categories. In every pass an image comes as often as its factor says, the
    fraction by chance. The stream is the one of detectron2's RepeatFactorTrainingSampler with the
    same seed; every process takes every n-th of it. Source: LVIS (Gupta et al. 2019), appendix B.2.

    It is for iteration-based training, which resumes at any position of the stream.

    Args:
        dataset: :class:`evamm.CocoDataset` and others that tell their `labels_of_images`, or a
            data set of mmdet.
        threshold: Share of the images below which a category counts as rare.
        shuffle: Mix every pass.
        seed: Seed of the stream, equal on all processes; drawn if None.
    """

    def __init__(
        self,
        dataset: Any,
        threshold: float = 0.001,
        shuffle: bool = True,
        seed: int | None = None,
    ) -> None:
        if threshold < 0:
            raise ValueError(f'RepeatFactorSampler: `threshold` must not be below 0: {threshold}')
        super().__init__(dataset, shuffle=shuffle, seed=seed)
        self.threshold = threshold
        self.factors = torch.from_numpy(repeat_factors(*labels_of_images(dataset), threshold))

    def describe(self) -> dict[str, Any]:
        """What the order follows from besides seed and number of samples, as plain values."""
        return {'threshold': self.threshold, 'shuffle': self.shuffle}

    def _infinite_indices(self) -> Iterator[int]:
        whole = self.factors.trunc()
        rest = self.factors - whole
        images = torch.arange(len(whole))
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            extra = torch.rand(len(rest), generator=generator) < rest
            indices = images.repeat_interleave(whole.long() + extra)
            if self.shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield from indices.tolist()


def repeat_factors(labels: np.ndarray, starts: np.ndarray, threshold: float) -> np.ndarray:
    """How often every image comes in a pass.

    Args:
        labels: Labels image after image, each once.
        starts: Where the labels of each image begin, and the end of the last.
        threshold: See :class:`RepeatFactorSampler`.

    Returns:
        float32 [images], at least 1.
    """
    images = len(starts) - 1
    share = np.bincount(labels) / max(1, images)
    with np.errstate(divide='ignore'):
        of_label = np.sqrt(threshold / share)
    factors = np.ones(images)
    owners = np.repeat(np.arange(images), np.diff(starts))
    np.maximum.at(factors, owners, of_label[labels])
    return factors.astype(np.float32)


def labels_of_images(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the images of a data set, see :func:`repeat_factors`.

    Raises:
        TypeError: The data set cannot tell.
    """
    if hasattr(dataset, 'labels_of_images'):
        return dataset.labels_of_images()
    if isinstance(parts := getattr(dataset, 'datasets', None), (list, tuple)):
        known = [labels_of_images(part) for part in parts]
        lengths = np.concatenate([np.diff(starts) for _, starts in known])
        labels = np.concatenate([labels for labels, _ in known])
    elif hasattr(dataset, 'get_cat_ids'):
        sets = [sorted(set(dataset.get_cat_ids(index))) for index in range(len(dataset))]
        lengths = [len(labels) for labels in sets]
        labels = np.array([label for labels in sets for label in labels], np.int32)
    else:
        raise TypeError(
            f'RepeatFactorSampler: {type(dataset).__name__} cannot tell which categories are in '
            'its images; use a detection data set, such as evamm.CocoDataset.'
        )
    return labels, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
