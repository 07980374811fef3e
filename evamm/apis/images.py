"""From what a user hands over (paths, folders, patterns, addresses, arrays) to decoded images."""

import glob
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ImageInput = str | os.PathLike | np.ndarray | Image.Image
CHANNEL_ORDERS = ('bgr', 'rgb')
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.gif', '.ppm', '.pgm')


class ImageReadError(ValueError):
    """An image cannot be read; the message names its path (or its place in the list) and why."""


@dataclass(frozen=True)
class ImageSource:
    """One image that has not been decoded yet.

    Attributes:
        name: Path or address as the user gave it, or 'image 3' for the fourth array of a list.
        content: Path, address, array or PIL image.
    """

    name: str
    content: ImageInput

    @property
    def path(self) -> str | None:
        """The path or address, None for an image in memory."""
        return os.fspath(self.content) if isinstance(self.content, (str, os.PathLike)) else None


def is_single_image(inputs: ImageInput | Sequence[ImageInput]) -> bool:
    """Whether `inputs` names exactly one image: not a list, a folder, a pattern or a batch."""
    if isinstance(inputs, np.ndarray):
        return inputs.ndim != 4
    if isinstance(inputs, (str, os.PathLike)):
        return not os.path.isdir(inputs) and not _is_pattern(os.fspath(inputs))
    return isinstance(inputs, Image.Image)


def collect_images(inputs: ImageInput | Sequence[ImageInput]) -> list[ImageSource]:
    """Lists the images that `inputs` stands for, without decoding any.

    Args:
        inputs: A path, an http(s) address, a folder (searched recursively), a glob pattern, an
            array [H, W, 3] or [H, W], a batch of arrays [B, H, W, 3], a PIL image, or a list of
            these. Folders and patterns give sorted paths.

    Raises:
        FileNotFoundError: A path does not exist, or a folder or a pattern holds no image.
        TypeError: Something is none of the kinds above.
    """
    items = [inputs] if isinstance(inputs, (str, os.PathLike, np.ndarray, Image.Image)) else inputs
    if not isinstance(items, (list, tuple)):
        raise TypeError(
            'An input must be a path, a folder, a pattern, an array, a PIL image or a list of '
            f'these, found {type(inputs).__name__}. A normalised tensor goes to model(tensor).'
        )
    sources: list[ImageSource] = []
    for item in items:
        if isinstance(item, (str, os.PathLike)):
            sources += [ImageSource(path, path) for path in _expand_path(os.fspath(item))]
        elif isinstance(item, np.ndarray) and item.ndim == 4:
            sources += [
                ImageSource(f'image {len(sources) + i}', image) for i, image in enumerate(item)
            ]
        elif isinstance(item, (np.ndarray, Image.Image)):
            sources.append(ImageSource(f'image {len(sources)}', item))
        else:
            raise TypeError(
                f'Input {len(sources)} must be a path, an array or a PIL image, found '
                f'{type(item).__name__}. A normalised tensor goes to model(tensor).'
            )
    return sources


def load_image(source: ImageSource, channel_order: str = 'bgr') -> np.ndarray:
    """Decodes one image as the official code does (PIL), upright by its EXIF orientation.

    Args:
        source: What `collect_images` gave.
        channel_order: Order of the channels of an array in `source`, 'bgr' as everywhere in
            OpenMMLab and OpenCV, or 'rgb'. Paths and PIL images need no such hint.

    Returns:
        RGB image, uint8 [H, W, 3].

    Raises:
        ImageReadError: The file is missing, truncated or no image; the array has a wrong shape or
            type.
    """
    content = source.content
    if isinstance(content, np.ndarray):
        return _check_array(content, source.name, channel_order)
    if isinstance(content, Image.Image):
        return _to_rgb_array(content, source.name)
    try:
        with Image.open(_open(os.fspath(content))) as image:
            return _to_rgb_array(image, source.name)
    except ImageReadError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # PIL raises SyntaxError for broken PNG chunks.
        raise ImageReadError(f'Cannot read the image {source.name}: {error}') from error


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) and not os.path.exists(path) and not _is_address(path)


def _is_address(path: str) -> bool:
    return path.startswith(('http://', 'https://'))


def _expand_path(path: str) -> Iterator[str]:
    if _is_address(path) or os.path.isfile(path):
        yield path
        return
    if os.path.isdir(path):
        found = [str(file) for file in Path(path).rglob('*')]
        missing = f'The folder {path} holds no image'
    elif _is_pattern(path):
        found = glob.glob(path, recursive=True)
        missing = f'No image matches the pattern {path}'
    else:
        raise FileNotFoundError(f'There is no image or folder at {path}')
    found = sorted(
        file for file in found if file.lower().endswith(IMAGE_SUFFIXES) and os.path.isfile(file)
    )
    if not found:
        raise FileNotFoundError(f'{missing} ({", ".join(IMAGE_SUFFIXES)}).')
    yield from found


def _open(path: str) -> str | io.BytesIO:
    if not _is_address(path):
        return path
    from mmengine.fileio import get

    return io.BytesIO(get(path))


def _to_rgb_array(image: Image.Image, name: str) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I') or image.mode == 'F':
        image = Image.fromarray(_to_8_bits(image, name))
    return np.array(image.convert('RGB'))


def _to_8_bits(image: Image.Image, name: str) -> np.ndarray:
    """Grey values of more than 8 bits, which PIL would clip at 255: almost all would be white.

    16 bits become 8 as OpenCV does it, by the high byte. Wider values (modes I and F) have no
    white of their own; 0 to 255 is taken as it is, and up to 65535 as 16 bits, which older
    versions of PIL give as mode I.
    """
    values = np.asarray(image)
    if image.mode.startswith('I;16'):
        return (values >> 8).astype(np.uint8)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low >= 0 and high <= 1 and image.mode == 'F' and high > 0:
        return (values * 255).round().astype(np.uint8)
    if low >= 0 and high <= 255:
        return values.round().astype(np.uint8)
    if low >= 0 and high <= 65535 and image.mode == 'I':
        return (values >> 8).astype(np.uint8)
    raise ImageReadError(
        f'{name} has grey values from {low:g} to {high:g} (PIL mode {image.mode}), so it does not '
        'say what is black and what is white; convert it to 8 or 16 bits.'
    )


def _check_array(array: np.ndarray, name: str, channel_order: str) -> np.ndarray:
    if channel_order not in CHANNEL_ORDERS:
        raise ValueError(f"channel_order must be one of {CHANNEL_ORDERS}, found '{channel_order}'.")
    if array.dtype != np.uint8:
        raise ImageReadError(f'{name} must be a uint8 array (0 to 255), found {array.dtype}.')
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3:
        raise ImageReadError(
            f'{name} must have the shape [H, W, 3] or [H, W], found {list(array.shape)}.'
        )
    return array if channel_order == 'rgb' else array[:, :, ::-1]
