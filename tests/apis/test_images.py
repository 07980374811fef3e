"""Inputs of every kind become the right decoded images, or a message that names the culprit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evamm.apis.images import (
    ImageReadError,
    ImageSource,
    collect_images,
    is_single_image,
    load_image,
)
from evamm.apis.loader import load_batches


def names(sources: list[ImageSource], root: Path) -> list[str]:
    return [str(Path(source.name).relative_to(root)) for source in sources]


def test_folder_is_searched_deep_sorted_and_filtered(photos: Path) -> None:
    assert names(collect_images(photos), photos) == [
        'bird.jpg',
        'cat.png',
        'grey.jpg',
        'more/cat.jpg',
    ]


def test_pattern_and_list_keep_their_order(photos: Path) -> None:
    sources = collect_images([photos / 'cat.png', str(photos / '*.jpg')])
    assert names(sources, photos) == ['cat.png', 'bird.jpg', 'grey.jpg']


def test_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / 'odd[1].png'
    Image.new('RGB', (4, 4)).save(path)
    assert is_single_image(path)
    assert collect_images(path)[0].path == str(path)


def test_batch_of_arrays_becomes_single_images() -> None:
    batch = np.zeros((3, 8, 6, 3), np.uint8)
    assert [source.name for source in collect_images(batch)] == ['image 0', 'image 1', 'image 2']
    assert [source.name for source in collect_images([batch[0], batch[:2]])] == [
        'image 0',
        'image 1',
        'image 2',
    ]


@pytest.mark.parametrize(
    ('inputs', 'single'),
    [
        ('a.jpg', True),
        (np.zeros((4, 4, 3)), True),
        (Image.new('RGB', (4, 4)), True),
        ('*.jpg', False),
        (np.zeros((1, 4, 4, 3)), False),
        (['a.jpg'], False),
    ],
)
def test_what_counts_as_one_image(inputs: object, single: bool) -> None:
    assert is_single_image(inputs) is single


@pytest.mark.parametrize(
    ('bad', 'words'), [('nowhere.jpg', 'nowhere.jpg'), ('no*where', r'no\*where')]
)
def test_missing_inputs_are_named(bad: str, words: str) -> None:
    with pytest.raises(FileNotFoundError, match=words):
        collect_images(bad)


def test_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        collect_images(tmp_path)


def test_wrong_kind_is_named() -> None:
    with pytest.raises(TypeError, match='Input 1 must be a path, .* found dict'):
        collect_images([np.zeros((4, 4, 3), np.uint8), {}])


def test_png_is_read_exactly_and_jpeg_as_opencv_reads_it(photos: Path, cat: Image.Image) -> None:
    import cv2

    png = load_image(collect_images(photos / 'cat.png')[0])
    np.testing.assert_array_equal(png, np.asarray(cat))
    jpeg = load_image(collect_images(photos / 'more/cat.jpg')[0])
    opencv = cv2.imread(str(photos / 'more/cat.jpg'))[..., ::-1].astype(int)
    assert np.abs(jpeg - opencv).max() <= 2  # decoders may round differently, channels may not swap


def test_grey_becomes_three_equal_channels(photos: Path) -> None:
    image = load_image(collect_images(photos / 'grey.jpg')[0])
    assert image.shape == (300, 451, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_sixteen_bit_grey_keeps_its_contrast(tmp_path: Path) -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / 'ramp.png')
    image = load_image(collect_images(tmp_path / 'ramp.png')[0])
    np.testing.assert_array_equal(image[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize('name', ['grey.png', 'grey.tif'])
def test_sixteen_bits_become_eight_as_in_opencv(tmp_path: Path, name: str) -> None:
    import cv2

    values = np.random.default_rng(0).integers(0, 65536, (9, 7)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / name), values)
    image = load_image(collect_images(tmp_path / name)[0])
    theirs = cv2.imread(str(tmp_path / name))
    np.testing.assert_array_equal(image, theirs)
    assert len(np.unique(image)) > 40


@pytest.mark.parametrize(
    ('mode', 'factor', 'expected'),
    [('I', 1, 1), ('I', 256, 1), ('F', 1, 1), ('F', 1 / 255, 1), ('I;16', 256, 1), ('I;16', 1, 0)],
)
def test_wide_grey_values(mode: str, factor: float, expected: int) -> None:
    """0 to 255 in a wide mode is no 16-bit image, which a shift by 8 would turn black."""
    ramp = np.arange(256).reshape(16, 16)
    kinds = {'I': np.int32, 'F': np.float32, 'I;16': np.uint16}
    image = Image.fromarray((ramp * factor).astype(kinds[mode]))
    assert image.mode == mode
    found = load_image(ImageSource('a', image))
    np.testing.assert_array_equal(found[..., 1], ramp * expected)


@pytest.mark.parametrize(
    'values',
    [
        np.full((2, 2), -1, np.int32),
        np.full((2, 2), 70000, np.int32),
        np.full((2, 2), 300.5, np.float32),
        np.full((2, 2), np.nan, np.float32),
    ],
)
def test_grey_values_without_a_white_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / 'wide.tif')
    with pytest.raises(ImageReadError, match='wide.tif has grey values from .* 8 or 16 bits'):
        load_image(collect_images(tmp_path / 'wide.tif')[0])


def test_photo_is_turned_upright(tmp_path: Path) -> None:
    picture = Image.new('RGB', (6, 4))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / 'turned.jpg', exif=exif)
    assert load_image(collect_images(tmp_path / 'turned.jpg')[0]).shape == (6, 4, 3)


def test_channel_order_of_arrays() -> None:
    array = np.zeros((2, 2, 3), np.uint8)
    array[..., 0] = 255  # blue in OpenMMLab's order
    assert load_image(ImageSource('a', array))[0, 0].tolist() == [0, 0, 255]
    assert load_image(ImageSource('a', array), 'rgb')[0, 0].tolist() == [255, 0, 0]
    with pytest.raises(ValueError, match="found 'gbr'"):
        load_image(ImageSource('a', array), 'gbr')


@pytest.mark.parametrize(
    ('array', 'words'),
    [
        (np.zeros((4, 4, 3), np.float32), 'image 0 must be a uint8 array .* found float32'),
        (np.zeros((3, 4, 4), np.uint8), r'shape \[H, W, 3\] or \[H, W\], found \[3, 4, 4\]'),
    ],
)
def test_wrong_arrays_are_explained(array: np.ndarray, words: str) -> None:
    with pytest.raises(ImageReadError, match=words):
        load_image(ImageSource('image 0', array))


@pytest.mark.parametrize('damage', ['truncated', 'text', 'empty', 'broken png'])
def test_damaged_file_is_named(photos: Path, tmp_path: Path, damage: str) -> None:
    content = (photos / 'bird.jpg').read_bytes()
    png = bytearray((photos / 'cat.png').read_bytes())
    png[40:60] = b'x' * 20
    damaged = {
        'truncated': content[: len(content) // 2],
        'text': b'hello',
        'empty': b'',
        'broken png': bytes(png),
    }[damage]
    path = tmp_path / 'damaged.jpg'
    path.write_bytes(damaged)
    with pytest.raises(ImageReadError, match='Cannot read the image .*damaged.jpg: '):
        load_image(collect_images(path)[0])


def test_batches_keep_order_and_report_errors_in_place() -> None:
    sources = [ImageSource(str(i), 'unused') for i in range(7)]

    def prepare(source: ImageSource) -> dict:
        if source.name in ('2', '6'):
            raise ImageReadError(f'bad {source.name}')
        return {'name': source.name}

    batches = list(load_batches(sources, prepare, 3, on_error='report', progress=False))
    assert [indices for indices, _, _ in batches] == [[0, 1], [3, 4, 5], []]
    assert [[s['name'] for s in samples] for _, samples, _ in batches] == [
        ['0', '1'],
        ['3', '4', '5'],
        [],
    ]
    assert {i: str(e) for _, _, errors in batches for i, e in errors.items()} == {
        2: 'bad 2',
        6: 'bad 6',
    }
    with pytest.raises(ImageReadError, match='bad 2'):
        list(load_batches(sources, prepare, 3, progress=False))


def test_images_are_prepared_only_a_little_ahead() -> None:
    prepared = []
    batches = load_batches(
        [ImageSource(str(i), 'unused') for i in range(1000)],
        lambda source: prepared.append(source) or {},
        4,
        progress=False,
    )
    next(batches)
    batches.close()
    assert len(prepared) <= 24  # memory does not grow with the folder
