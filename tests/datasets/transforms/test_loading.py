import io

import cv2
import numpy as np
import pytest
from PIL import Image

from evamm.datasets.transforms.loading import LoadImageFromFile, decode_image


def as_official(content: bytes) -> np.ndarray:
    """The official loader is torchvision's, PIL's convert('RGB'); BGR as in OpenMMLab."""
    return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))[..., ::-1]


def encode(image: Image.Image, kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


FILES = {
    'chroma 4:2:0': ('RGB', 'JPEG', dict(subsampling='4:2:0')),
    'chroma 4:2:2': ('RGB', 'JPEG', dict(subsampling='4:2:2')),
    'chroma 4:4:4': ('RGB', 'JPEG', dict(subsampling='4:4:4')),
    'progressive': ('RGB', 'JPEG', dict(progressive=True)),
    'stored as RGB': ('RGB', 'JPEG', dict(keep_rgb=True)),
    'grey': ('L', 'JPEG', {}),
    'CMYK': ('CMYK', 'JPEG', {}),
    'PNG': ('RGB', 'PNG', {}),
    'PNG, transparent': ('RGBA', 'PNG', {}),
    'PNG, grey and transparent': ('LA', 'PNG', {}),
    'PNG, palette': ('P', 'PNG', {}),
    'PNG, one bit': ('1', 'PNG', {}),
    'GIF': ('P', 'GIF', {}),
    'BMP': ('RGB', 'BMP', {}),
}


@pytest.mark.parametrize('size', [(161, 120), (33, 47), (8, 8), (1, 50), (50, 1), (1, 1)])
@pytest.mark.parametrize('file', FILES)
def test_pixels_are_pillows(photo: Image.Image, file: str, size: tuple[int, int], tmp_path):
    mode, kind, settings = FILES[file]
    picture = photo.resize(size)
    if mode in ('RGBA', 'LA'):
        picture.putalpha(picture.convert('L'))
    content = encode(picture.convert(mode), kind, **settings)
    path = tmp_path / 'photo.JPEG'  # whatever the content, as in ImageNet
    path.write_bytes(content)
    results = LoadImageFromFile()(dict(img_path=str(path), gt_label=3))
    np.testing.assert_array_equal(results['img'], as_official(content))
    assert results['img'].flags.c_contiguous and results['img'].dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == size[::-1]
    assert results['gt_label'] == 3


def test_opencv_alone_would_change_cmyk(photo: Image.Image):
    """Otherwise the test above could not tell the two decoders apart."""
    content = encode(photo.convert('CMYK'), 'JPEG')
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert (image != as_official(content)).mean() > 0.5


def test_rotation_in_exif_is_ignored(photo: Image.Image):
    exif = photo.getexif()
    exif[0x0112] = 6
    content = encode(photo, 'JPEG', exif=exif)
    assert decode_image(content).shape == (120, 161, 3)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'GIF'])
@pytest.mark.parametrize('part', [0, 0.01, 0.5])
def test_file_cut_off_is_named(photo: Image.Image, kind: str, part: float, tmp_path):
    content = encode(photo, kind)
    path = tmp_path / 'half.jpg'
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(OSError, match='half.jpg is not an image that can be decoded'):
        LoadImageFromFile()(dict(img_path=str(path)))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.jpg'):
        LoadImageFromFile()(dict(img_path=str(tmp_path / 'none.jpg')))
