"""Polygons of instances, cut to a window."""

from collections.abc import Sequence

import numpy as np
import shapely

# Parts of an instance: [2 * P] arrays x1, y1, x2, y2, ...
Polygons = list[np.ndarray]


def clip_polygons(
    instances: Sequence[Polygons], left: float, top: float, right: float, bottom: float
) -> list[Polygons]:
    """Cut the polygons of every instance to a window.

    One polygon may fall into several, an instance may be left with none. As in the official code
    (fvcore's CropTransform), a polygon that crosses itself is made valid first, by a buffer of
    width zero, and only outer rings are kept.

    Args:
        instances: Polygons of every instance.
        left, top, right, bottom: The window.

    Returns:
        Polygons of every instance, in the same coordinates.
    """
    owners = [number for number, polygons in enumerate(instances) for _ in polygons]
    clipped: list[Polygons] = [[] for _ in instances]
    if not owners:
        return clipped
    points = [polygon.reshape(-1, 2) for polygons in instances for polygon in polygons]
    lengths = [len(part) for part in points]
    # The ring's first point again at its end, as shapely wants it.
    closed = np.concatenate([part for ring in points for part in (ring, ring[:1])])
    rings = shapely.linearrings(closed, indices=np.repeat(range(len(points)), np.add(lengths, 1)))
    shapes = shapely.polygons(rings)
    valid = shapely.is_valid(shapes)
    bounds = shapely.bounds(shapes)
    inside = (bounds[:, :2] >= (left, top)).all(1) & (bounds[:, 2:] <= (right, bottom)).all(1)
    window = shapely.box(left, top, right, bottom)
    for number in range(len(points)):
        if valid[number] and inside[number]:
            clipped[owners[number]].append(points[number].reshape(-1))
            continue
        shape = shapes[number] if valid[number] else shapely.buffer(shapes[number], 0.0)
        for part in shapely.get_parts(shapely.intersection(shape, window)):
            # A window's edge may also meet a polygon in a line or a point.
            if part.geom_type == 'Polygon' and not part.is_empty:
                ring = shapely.get_coordinates(part.exterior)
                clipped[owners[number]].append(ring[:-1].reshape(-1))
    return clipped


def polygon_boxes(instances: Sequence[Polygons]) -> np.ndarray:
    """Smallest boxes around instances.

    Returns:
        float32 [N, 4] as x1, y1, x2, y2; zeros for an instance without polygons.
    """
    boxes = np.zeros((len(instances), 4), np.float32)
    for number, polygons in enumerate(instances):
        if polygons:
            points = np.concatenate(polygons).reshape(-1, 2)
            boxes[number] = (*points.min(0), *points.max(0))
    return boxes
