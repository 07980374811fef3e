"""Images and annotations that the official transforms were run on, made from formulas."""

import numpy as np

# (height, width) of the image, side of the crop, smallest and largest scale, masks.
CASES = [
    ((96, 128), 64, (0.1, 2.0), True),
    ((128, 96), 64, (0.1, 2.0), True),
    ((61, 203), 64, (1.2, 2.0), True),
    ((80, 80), 96, (0.1, 2.0), True),
    ((75, 50), 64, (0.1, 0.6), True),
    ((96, 128), 64, (0.1, 2.0), False),
    ((203, 61), 96, (1.2, 2.0), False),
]
SEEDS = range(4)


def picture(height: int, width: int) -> np.ndarray:
    """A smooth colour image, uint8 [H, W, 3] in RGB order."""
    rows, columns = np.mgrid[:height, :width]
    channels = [
        np.sin(columns / (5 + channel)) + np.cos(rows / (7 - channel)) + columns * rows / 4000 % 1
        for channel in range(3)
    ]
    return np.clip(np.stack(channels, -1) * 45 + 110, 0, 255).astype(np.uint8)


def annotations(height: int, width: int, seed: int) -> list[dict]:
    """Instances in COCO's format: round ones, ones in two parts, one that crosses itself, a crowd.

    Some reach the border, some are tiny.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(7):
        centre = rng.uniform(0, 1, 2) * (width, height)
        radius = rng.choice([2.0, 0.12 * width, 0.3 * width]) * rng.uniform(0.6, 1.2, 2)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        polygons = [centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)]
        if number == 1:
            polygons.append(polygons[0] + (0.2 * width, 0.0))
        if number == 2:  # a bow tie
            polygons = [centre + radius * np.array([[-1, -1], [1, 1], [1, -1], [-1, 1.5]])]
        polygons = [np.clip(polygon, 0, (width, height)).round(2) for polygon in polygons]
        points = np.concatenate(polygons)
        low, high = points.min(0), points.max(0)
        rows.append(
            {
                'bbox': [*low.tolist(), *(high - low).round(2).tolist()],
                'category_id': number % 3,
                'iscrowd': int(number == 6),
                'segmentation': [polygon.reshape(-1).tolist() for polygon in polygons],
            }
        )
    return rows
