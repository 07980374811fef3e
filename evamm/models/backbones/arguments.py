"""Arguments of the trunk that would fail late, or not at all, if they were taken as they are."""

from collections.abc import Sequence


def is_count(value: object) -> bool:
    """Whether a value is a whole number above zero."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def image_size(
    value: int | Sequence[int], patch_size: int, name: str = 'img_size'
) -> tuple[int, int]:
    """Height and width of the input, or of the one that an argument of another name means.

    Raises:
        ValueError: It is no size, or no multiple of the patch size.
    """
    sides = (value, value) if isinstance(value, int) else value
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(map(is_count, sides)):
        raise ValueError(
            f'{name}={value!r} must be a positive number of pixels, or (height, width).'
        )
    if any(side % patch_size for side in sides):
        raise ValueError(f'{name}={tuple(sides)} is no multiple of patch_size={patch_size}.')
    return (sides[0], sides[1])


def check_counts(**counts: int) -> None:
    """Refuse sizes and numbers of parts below one.

    Raises:
        ValueError: Names the argument.
    """
    for name, value in counts.items():
        if not is_count(value):
            raise ValueError(f'{name}={value!r} must be a positive number.')


def block_indices(name: str, value: int | Sequence[int], depth: int) -> tuple[int, ...]:
    """Indices of blocks, counted from the front.

    Raises:
        ValueError: There is none, one is no block, or they are not in rising order, which is the
            order in which the outputs come.
    """
    given = [value] if isinstance(value, int) else list(value)
    if not given:
        raise ValueError(f'{name}={value!r} must name a block, such as -1 for the last.')
    for index in given:
        if not isinstance(index, int) or not -depth <= index < depth:
            raise ValueError(f'{name}: {index} is no block of a {depth}-block trunk.')
    indices = tuple(index % depth for index in given)
    if list(indices) != sorted(set(indices)):
        raise ValueError(
            f'{name}={value!r} must rise, with no block twice: outputs come in that order.'
        )
    return indices
