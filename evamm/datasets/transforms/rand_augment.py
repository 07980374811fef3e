"""RandAugment with the operations of mmcv that work on single values turned into look-up tables.

Every operation here gives exactly what the mmpretrain transform of the same name gives, from the
same random numbers. mmcv computes them in float32 or by masks over the whole image, and histograms
by `np.histogram`, several times slower than Pillow.
"""

from math import ceil
from numbers import Number

import cv2
import numpy as np
from mmpretrain.datasets import transforms
from mmpretrain.datasets.transforms.auto_augment import RANDAUG_POLICIES

from evamm.registry import TRANSFORMS

VALUES = np.arange(256)
VALUES_FLOAT = VALUES.astype(np.float32)


def apply_table(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace every value by its entry.

    Args:
        image: uint8 [H, W, C].
        table: uint8 [256], or [256, C] for one table per channel.
    """
    if table.ndim == 2:
        table = table[None]  # [1, 256, C], OpenCV's shape
    return cv2.LUT(image, table)


def histogram(image: np.ndarray, channel: int) -> np.ndarray:
    """Counts of the values of one channel, int64 [256]. `image` is uint8 [H, W, C]."""
    counts = cv2.calcHist([image], [channel], None, [256], [0, 256])
    return counts[:, 0].astype(np.int64)  # exact: float32 counts up to 2**24 pixels


def blend_table(other: int, factor: float) -> np.ndarray:
    """Table of `value * factor + other * (1 - factor)`, rounded as mmcv does (towards zero)."""
    values = VALUES_FLOAT[:, None]
    blended = cv2.addWeighted(values, factor, np.full_like(values, other), 1 - factor, 0)
    return np.clip(blended[:, 0], 0, 255).astype(np.uint8)


@TRANSFORMS.register_module()
class AutoContrast(transforms.AutoContrast):
    """Stretch every channel to 0 ... 255."""

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        image = results['img']
        tables = []
        for channel in cv2.split(image):
            low, high = cv2.minMaxLoc(channel)[:2]
            if low == high:
                tables.append(VALUES)
            else:
                scale = 255.0 / (high - low)
                tables.append(np.clip(VALUES * scale - low * scale, 0, 255))
        results['img'] = apply_table(image, np.stack(tables, axis=1).astype(np.uint8))
        return results


@TRANSFORMS.register_module()
class Equalize(transforms.Equalize):
    """Make the values of every channel about equally frequent."""

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        image = results['img']
        tables = []
        for channel in range(image.shape[2]):
            counts = histogram(image, channel)
            step = (counts.sum() - counts[counts > 0][-1]) // 255
            if step == 0:
                tables.append(VALUES)
            else:
                before = np.concatenate([[0], (counts.cumsum() + step // 2)[:-1] // step])
                tables.append(np.minimum(before, 255))
        results['img'] = apply_table(image, np.stack(tables, axis=1).astype(np.uint8))
        return results


@TRANSFORMS.register_module()
class Invert(transforms.Invert):
    """Turn every value into its negative."""

    def transform(self, results: dict) -> dict:
        if not self.random_disable():
            results['img'] = cv2.bitwise_not(results['img'])
        return results


@TRANSFORMS.register_module()
class Posterize(transforms.Posterize):
    """Keep the upper bits of every value."""

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        # Rounded up, as timm does
        bits = ceil(self.bits if self.bits is not None else self.random_magnitude())
        table = (VALUES >> (8 - bits) << (8 - bits)).astype(np.uint8)
        results['img'] = apply_table(results['img'], table)
        return results


@TRANSFORMS.register_module()
class Solarize(transforms.Solarize):
    """Invert the values from a threshold upwards."""

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        threshold = self.thr if self.thr is not None else self.random_magnitude()
        table = np.where(VALUES < threshold, VALUES, 255 - VALUES).astype(np.uint8)
        results['img'] = apply_table(results['img'], table)
        return results


@TRANSFORMS.register_module()
class SolarizeAdd(transforms.SolarizeAdd):
    """Add to the values below a threshold, up to 255 (mmpretrain wraps a whole `magnitude`)."""

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        magnitude = self.magnitude if self.magnitude is not None else self.random_magnitude()
        raised = np.minimum(VALUES + magnitude, 255)
        table = np.where(VALUES < self.thr, raised, VALUES).astype(np.uint8)
        results['img'] = apply_table(results['img'], table)
        return results


@TRANSFORMS.register_module()
class Brightness(transforms.Brightness):
    """Blend with black."""

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        magnitude = self.random_negative(_magnitude(self))
        results['img'] = apply_table(results['img'], blend_table(0, 1 + magnitude))
        return results


@TRANSFORMS.register_module()
class Contrast(transforms.Contrast):
    """Blend with the mean grey value of a BGR image."""

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        magnitude = self.random_negative(_magnitude(self))
        grey = cv2.cvtColor(results['img'], cv2.COLOR_BGR2GRAY)
        mean = round(grey.sum() / grey.size)
        results['img'] = apply_table(results['img'], blend_table(mean, 1 + magnitude))
        return results


@TRANSFORMS.register_module()
class ColorTransform(transforms.ColorTransform):
    """Blend a BGR image with its grey version."""

    def transform(self, results: dict) -> dict:
        if self.random_disable():
            return results
        alpha = 1 + self.random_negative(_magnitude(self))
        image = results['img']
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        results['img'] = cv2.addWeighted(image, alpha, grey, 1 - alpha, 0)
        return results


def _magnitude(operation: transforms.Brightness) -> Number:
    fixed = operation.magnitude
    return fixed if fixed is not None else operation.random_magnitude()


FASTER = {
    operation.__name__
    for operation in (
        AutoContrast,
        Brightness,
        ColorTransform,
        Contrast,
        Equalize,
        Invert,
        Posterize,
        Solarize,
        SolarizeAdd,
    )
}


@TRANSFORMS.register_module()
class RandAugment(transforms.RandAugment):
    """mmpretrain's RandAugment, the same images of the same random numbers, faster.

    Args:
        policies: Name of a preset of mmpretrain ('timm_increasing'), or its operations.
        num_policies: Operations per image.
        magnitude_level: Strength, of `total_level`.
        magnitude_std: Deviation of the strength, or 'inf' for uniform draws.
        total_level: Largest strength.
        hparams: Arguments for every operation that takes them and does not set them.
    """

    def __init__(
        self,
        policies: str | list[dict],
        num_policies: int,
        magnitude_level: int,
        magnitude_std: Number | str = 0.0,
        total_level: int = 10,
        hparams: dict | None = None,
    ) -> None:
        if isinstance(policies, str):
            if policies not in RANDAUG_POLICIES:
                raise ValueError(
                    f'RandAugment: `policies` must be one of {sorted(RANDAUG_POLICIES)} or a list '
                    f'of operations, found {policies!r}'
                )
            policies = RANDAUG_POLICIES[policies]
        super().__init__(
            policies=[_faster(policy) for policy in policies],
            num_policies=num_policies,
            magnitude_level=magnitude_level,
            magnitude_std=magnitude_std,
            total_level=total_level,
            hparams=dict(pad_val=128) if hparams is None else hparams,
        )


def _faster(policy: dict) -> dict:
    name = policy['type']
    scope, _, bare = str(name).rpartition('.')
    if scope in ('', 'mmpretrain') and bare in FASTER:
        return dict(policy, type=f'evamm.{bare}')
    return policy
