"""Why an entry of an annotation file cannot be used."""

from typing import Any

from pycocotools import mask as mask_util


def value_of(row: Any, key: str) -> Any:
    """Value of a key, None where it is not there or cannot be one."""
    value = row.get(key) if isinstance(row, dict) else None
    return None if isinstance(value, (list, dict)) else value


def image_problem(entry: Any) -> str | None:
    """Why an image cannot be used; None if it can."""
    if value_of(entry, 'id') is None:
        return 'images without an id'
    if not any(isinstance(entry.get(key), str) for key in ('file_name', 'coco_url')):
        return 'images without a file name'
    if not all(_is_length(entry.get(key)) for key in ('width', 'height')):
        return 'images without width and height'
    return None


def _is_length(value: Any) -> bool:
    """Whether this is a positive whole number; some tools write 640.0."""
    return isinstance(value, (int, float)) and value > 0 and value % 1 == 0


def box_problem(box: Any, height: int, width: int, *, for_evaluation: bool = False) -> str | None:
    """Why [x, y, width, height] cannot be used; None if it can.

    Args:
        box: The box.
        height: Of the image.
        width: Of the image.
        for_evaluation: Boxes without area or outside of the image can be used: pycocotools counts
            them as objects that were not found.
    """
    if box is None:
        return 'annotations without a box'
    try:
        left, top, box_width, box_height = box
        area = box_width > 0 and box_height > 0  # also false for NaN
        inside = left < width and top < height and left + box_width > 0 and top + box_height > 0
        finite = left + top + box_width + box_height < float('inf')
    except (TypeError, ValueError):
        return 'boxes that are not four numbers'
    if box_width < 0 or box_height < 0:
        return 'boxes of negative size'
    if for_evaluation and finite:
        return None
    if not area or not finite:
        return 'boxes without area'
    return None if inside else 'boxes outside of their image'


def mask_problem(mask: Any, height: int, width: int) -> str | None:
    """Why a segmentation cannot be used; None if it can."""
    if not mask:
        return 'annotations without a mask, though masks are asked for'
    if isinstance(mask, list):
        usable = any(is_polygon(part) for part in mask)
        return None if usable else 'masks without a polygon of three points'
    if not isinstance(mask, dict) or 'counts' not in mask or 'size' not in mask:
        return 'masks that are neither polygons nor runs'
    if mask['size'] != [height, width]:
        return 'masks of another size than their image'
    counts = mask['counts']
    try:
        if isinstance(counts, list):
            covers = sum(counts) == height * width and min(counts) >= 0
        else:  # damaged compressed runs are too many
            covers = mask_util.area(mask) <= height * width
    except (TypeError, ValueError):
        return 'masks that are neither polygons nor runs'
    return None if covers else 'masks whose runs do not cover their image'


def is_polygon(part: Any) -> bool:
    """Whether this is [x1, y1, x2, y2, x3, y3, ...] with finite numbers."""
    if not isinstance(part, list) or len(part) % 2 or len(part) < 6:
        return False
    try:
        total = sum(part)
    except TypeError:
        return False
    return total - total == 0  # false for NaN and infinity
