"""Heads, feature maps and ground truth of the golden detection case, from the formula."""

import numpy as np
import torch
from torch import Tensor

from . import formula

CHANNELS, HIDDEN, CLASSES = 8, 12, 5
SIZES = [(128, 128), (96, 120), (128, 80)]  # height, width before padding to 128
IMAGE_COUNTS = [400, 30, 3, 90, 1]  # of the classes, for the federated loss

# Large boxes, small ones, two of different classes at one place; nothing in the last image.
BOXES = [
    [[4, 6, 70, 60], [50, 40, 126, 120], [50, 40, 126, 120], [20, 80, 34, 90]],
    [[10, 10, 110, 90], [60, 5, 90, 40], [80, 60, 119, 95]],
    [],
]
LABELS = [[0, 3, 1, 4], [2, 2, 0], []]


def polygons(boxes: list[list[float]]) -> list[list[np.ndarray]]:
    """Two triangles for every box: its upper left and a smaller lower right."""
    return [
        [
            np.array([x1, y1, x2, y1, x1, y2], dtype=float),
            np.array([x2, y2, x2, (y1 + y2) / 2, (x1 + x2) / 2, y2], dtype=float),
        ]
        for x1, y1, x2, y2 in boxes
    ]


def features() -> list[Tensor]:
    """Levels of strides 4 to 64 for three images of 128 x 128 pixels, alike at neighbours."""
    levels = []
    for stride in (4, 8, 16, 32, 64):
        coarse = formula.uniform(f'level{stride}', (len(SIZES), CHANNELS, 8, 8))
        index = torch.arange(128 // stride) * 8 // (128 // stride)
        shape = (len(SIZES), CHANNELS, 128 // stride, 128 // stride)
        fine = formula.uniform(f'fine{stride}', shape)
        levels.append(2 * coarse[:, :, index][..., index] + 0.5 * fine)
    return levels


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weight called `name`: predictions spread so that every rule decides something."""
    values = formula.uniform(name, tuple(shape))
    if values.ndim == 1:
        is_norm = '.ln.' in name and name.endswith('weight')
        return 1 + 0.2 * values if is_norm else 0.1 * values
    gain = 1.4
    if 'rpn_cls' in name or 'fc_cls' in name:
        gain = 8.0
    elif 'rpn_reg' in name:
        gain = 0.6
    elif 'fc_reg' in name:
        gain = 2.5
    elif 'conv_logits' in name:
        gain = 4.0
    if 'fc_cls' in name:  # rows without mean: after a ReLU it would make one class win everywhere
        values = values - values.mean(dim=1, keepdim=True)
    if 'upsample' in name:
        return gain / values.shape[0] ** 0.5 * values
    return gain / float(np.prod(values.shape[1:])) ** 0.5 * values


def state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights for names and shapes."""
    return {name: weight(name, shape) for name, shape in shapes.items()}


def spread(*size: object, device: object = None) -> Tensor:
    """In place of `torch.rand`: the sampler draws candidates from all over the list."""
    shape = tuple(size[0] if len(size) == 1 else size)
    keys = torch.arange(1, shape[-1] + 1, dtype=torch.float64) * 0.6180339887498949 % 1
    return keys.expand(shape).to(device).clone()
