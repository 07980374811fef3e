"""Masks for masked image modelling."""

import math
import random

import numpy as np
from mmcv.transforms import BaseTransform

from evamm.registry import TRANSFORMS

from ..samplers.generators import derive_seed

_ATTEMPTS = 10  # of placing one block, as in the official generator


def _grid(input_size: int | tuple[int, int]) -> tuple[int, int]:
    grid = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if len(grid) != 2 or not all(isinstance(side, int) and side > 0 for side in grid):
        raise ValueError(
            f'input_size={input_size!r} must be the side of the patch grid or (height, width).'
        )
    return grid


def _check_count(name: str, value: int, grid: tuple[int, int]) -> None:
    patches = grid[0] * grid[1]
    if not isinstance(value, int) or not 0 < value <= patches:
        raise ValueError(
            f'{name}={value!r} must lie in [1, {patches}]: the grid is {grid[0]} x {grid[1]}.'
        )


@TRANSFORMS.register_module()
class BlockMasking(BaseTransform):
    """Masks rectangular blocks of patches until enough are masked (BEiT; EVA section 2.1).

    The masks are those of ``EVA-01/eva/masking_generator.py`` for the same state of Python's
    ``random``. A block that would mask too many patches is not placed, so the number of masked
    patches varies: with the defaults 104.4 on average, at most 105, exactly 105 in 65 % of masks.

    The grid is one integer with a bit per patch; a block costs one shift and one bit count instead
    of a loop over its patches.

    Adds ``mask``: bool [height, width], True where a patch is masked.

    Args:
        input_size: Side of the patch grid, or (height, width).
        num_masking_patches: How many patches are masked, at most.
        min_num_patches: Smallest area that is drawn for a block.
        max_num_patches: Largest area of a block; None for what is still to be masked.
        min_aspect: Smallest ratio of height to width of a block.
        max_aspect: Largest ratio; None for ``1 / min_aspect``.

    Raises:
        ValueError: If a number makes no sense for the grid; the message names it.
    """

    def __init__(
        self,
        input_size: int | tuple[int, int] = 16,
        num_masking_patches: int = 105,
        min_num_patches: int = 16,
        max_num_patches: int | None = None,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
    ) -> None:
        self.height, self.width = _grid(input_size)
        if min(self.height, self.width) < 2:
            # A block is always smaller than the grid along both axes.
            raise ValueError(f'input_size={input_size!r}: blocks need a grid of 2 x 2 or more.')
        _check_count('num_masking_patches', num_masking_patches, (self.height, self.width))
        _check_count('min_num_patches', min_num_patches, (self.height, self.width))
        if max_num_patches is None:
            max_num_patches = num_masking_patches
        _check_count('max_num_patches', max_num_patches, (self.height, self.width))
        max_aspect = max_aspect or (1 / min_aspect if min_aspect > 0 else 0)
        if not 0 < min_aspect <= max_aspect < math.inf:
            raise ValueError(
                f'min_aspect={min_aspect} and max_aspect={max_aspect} must be positive and ordered.'
            )
        self.num_masking_patches = num_masking_patches
        self.min_num_patches = min_num_patches
        self.max_num_patches = max_num_patches
        self.log_aspect_ratio = (math.log(min_aspect), math.log(max_aspect))
        # Bit 0 of each of the first h rows, by h.
        self._columns = [
            sum(1 << (row * self.width) for row in range(h)) for h in range(self.height + 1)
        ]

    def transform(self, results: dict) -> dict:
        """Adds a mask to the sample."""
        results['mask'] = self.draw()
        return results

    def draw(self) -> np.ndarray:
        """A new mask, bool [height, width]."""
        mask, count = 0, 0
        while count < self.num_masking_patches:
            limit = min(self.num_masking_patches - count, self.max_num_patches)
            block = self._place_block(mask, limit)
            if not block:
                break
            mask |= block
            count = mask.bit_count()
        patches = self.height * self.width
        packed = np.frombuffer(mask.to_bytes((patches + 7) // 8, 'little'), np.uint8)
        bits = np.unpackbits(packed, count=patches, bitorder='little')
        return bits.view(bool).reshape(self.height, self.width)

    def _place_block(self, mask: int, limit: int) -> int:
        """Bits of a block that masks at least one and at most ``limit`` more patches, or 0."""
        uniform, randint = random.uniform, random.randint
        for _ in range(_ATTEMPTS):
            area = uniform(self.min_num_patches, limit)
            aspect = math.exp(uniform(*self.log_aspect_ratio))
            h = round(math.sqrt(area * aspect))
            w = round(math.sqrt(area / aspect))
            if w < self.width and h < self.height:
                top = randint(0, self.height - h)
                left = randint(0, self.width - w)
                block = (self._columns[h] * ((1 << w) - 1)) << (top * self.width + left)
                if 0 < (block & ~mask).bit_count() <= limit:
                    return block
        return 0

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(input_size=({self.height}, {self.width}), '
            f'num_masking_patches={self.num_masking_patches}, '
            f'min_num_patches={self.min_num_patches}, max_num_patches={self.max_num_patches})'
        )


@TRANSFORMS.register_module()
class RandomMasking(BaseTransform):
    """Masks a fixed share of the patches, each subset equally likely (MAE).

    Adds ``mask``: bool [height, width], True where a patch is masked.

    Args:
        input_size: Side of the patch grid, or (height, width).
        mask_ratio: Share of the patches that is masked, in (0, 1); the count is rounded.
        seed: With a seed, the mask follows from it and from ``sample_idx``: an image has the same
            mask whenever it is looked at (validation). None draws anew.

    Raises:
        ValueError: If the ratio leaves no patch to predict or none to see.
    """

    def __init__(
        self,
        input_size: int | tuple[int, int] = 16,
        mask_ratio: float = 0.75,
        seed: int | None = None,
    ) -> None:
        self.seed = seed
        self.height, self.width = _grid(input_size)
        patches = self.height * self.width
        self.num_masked = round(patches * mask_ratio)
        if not 0 < self.num_masked < patches:
            raise ValueError(
                f'mask_ratio={mask_ratio} masks {self.num_masked} of {patches} patches; at least '
                'one must be masked and one visible.'
            )

    def transform(self, results: dict) -> dict:
        """Adds a mask to the sample."""
        if self.seed is None:
            results['mask'] = self.draw()
        else:
            seed = derive_seed(self.seed, results['sample_idx'])
            results['mask'] = self.draw(random.Random(seed))
        return results

    def draw(self, generator: random.Random = random) -> np.ndarray:
        """A new mask, bool [height, width]."""
        patches = self.height * self.width
        mask = np.zeros(patches, bool)
        mask[generator.sample(range(patches), self.num_masked)] = True
        return mask.reshape(self.height, self.width)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(input_size=({self.height}, {self.width}), '
            f'num_masked={self.num_masked}, seed={self.seed})'
        )


@TRANSFORMS.register_module()
class EvenMasking(BaseTransform):
    """Masks every patch with an even row-major index: the official pattern for validation.

    Adds ``mask``: bool [height, width], True where a patch is masked.

    Args:
        input_size: Side of the patch grid, or (height, width).
    """

    def __init__(self, input_size: int | tuple[int, int] = 16) -> None:
        height, width = _grid(input_size)
        self.mask = (np.arange(height * width) % 2 == 0).reshape(height, width)

    def transform(self, results: dict) -> dict:
        """Adds the mask to the sample."""
        results['mask'] = self.mask.copy()
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(input_size={self.mask.shape})'
