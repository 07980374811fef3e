"""Decoding images to what Pillow makes of them, with the faster decoder where both agree."""

import io

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import fileio
from PIL import Image

from evamm.registry import TRANSFORMS

# Tag of the EXIF data that says how a camera was held, and what undoes each of its values.
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Markers of JPEG frames (SOF0 ... SOF15) without DHT, JPG and DAC, which lie between them.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageDecodeError(OSError):
    """A file is no image, or a damaged one; the message names it."""


def decode_image(content: bytes, *, orientation: bool = False) -> np.ndarray:
    """Decode an image file of any format to 8-bit colour.

    OpenCV and Pillow give the same bits for JPEG files (the same libjpeg-turbo settings) and PNG
    files of 8 bits; OpenCV takes two thirds of the time. Pillow, whose `convert('RGB')` the
    official code uses, decodes what OpenCV converts differently (CMYK) or cannot read (GIF).

    Args:
        content: The file.
        orientation: Turn the image upright by its EXIF data, as the official code does in
            detection; elsewhere it ignores them.

    Returns:
        uint8 [H, W, 3] in BGR order, contiguous.

    Raises:
        OSError: The content is no image, or is cut off.
    """
    image = None
    if _jpeg_channels(content) != 4:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if image is None:
        rgb = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
        image = np.ascontiguousarray(rgb[..., ::-1])
    if orientation and (turn := _turn(content)) is not None:
        image = np.array(Image.fromarray(image).transpose(turn))
    return image


def _turn(content: bytes) -> Image.Transpose | None:
    """How Pillow has to transpose an image so that it stands upright; None if it does."""
    if content[:2] == b'\xff\xd8' and b'Exif\0' not in content[:65536]:
        return None  # most files: nothing to parse
    try:
        return _TURNS.get(Image.open(io.BytesIO(content)).getexif().get(_ORIENTATION))
    except Exception:  # damaged data beside a sound image
        return None


def _jpeg_channels(content: bytes) -> int | None:
    """Number of colour channels that a JPEG file stores; None for other content."""
    if content[:2] != b'\xff\xd8':
        return None
    position = 2
    while position + 10 <= len(content):
        if content[position] != 0xFF:
            return None
        marker = content[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif marker in _JPEG_FRAMES:
            return content[position + 9]
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], 'big')
    return None


@TRANSFORMS.register_module()
class LoadImageFromFile(BaseTransform):
    """Read `img_path` as uint8 [H, W, 3] in BGR order; adds `img`, `img_shape` and `ori_shape`.

    Where the file was read before, its content is in `img_bytes`, and `img_path` only names it.
    Results that hold `img` already pass unchanged: mmpretrain's inferencer reads the image itself.

    Args:
        backend_args: Arguments of the file backend, see mmengine.fileio.
        orientation: See :func:`decode_image`.
    """

    def __init__(self, backend_args: dict | None = None, orientation: bool = False) -> None:
        self.backend_args = backend_args
        self.orientation = orientation

    def transform(self, results: dict) -> dict:
        """
        Raises:
            OSError: The file cannot be read.
            ImageDecodeError: It cannot be decoded; the message names it.
        """
        if 'img' in results and 'img_path' not in results:
            return results
        path = results['img_path']
        content = results.pop('img_bytes', None)
        if content is None:
            content = fileio.get(path, backend_args=self.backend_args)
        try:
            results['img'] = decode_image(content, orientation=self.orientation)
        except OSError as error:
            raise ImageDecodeError(
                f'{path} is not an image that can be decoded: {error}'
            ) from error
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(backend_args={self.backend_args}, '
            f'orientation={self.orientation})'
        )
