"""The transforms of a config equal the official preprocessing (torchvision on PIL images)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from evamm.apis.images import ImageReadError
from evamm.apis.transforms import ImageTransform, get_transforms, set_img_size

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])


def official(image: Image.Image, size: int) -> torch.Tensor:
    """Short side to `size` by PIL's bicubic, centre crop, CLIP statistics, written out."""
    width, height = image.size
    if width < height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), dtype=np.float64) / 255
    return ((torch.from_numpy(pixels) - MEAN) / STD).permute(2, 0, 1).float()


@pytest.mark.parametrize('shape', [(512, 512), (400, 601), (333, 250), (40, 30)])
def test_equals_the_formula_and_timm(
    config: Config, cat: Image.Image, shape: tuple[int, int]
) -> None:
    from timm.data import create_transform

    image = cat.resize(shape[::-1])
    ours = ImageTransform(config)(image)
    assert ours.shape == (3, 56, 56)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, official(image, 56), atol=2e-6, rtol=0)
    timm = create_transform(
        56, interpolation='bicubic', crop_pct=1.0, mean=MEAN.tolist(), std=STD.tolist()
    )
    torch.testing.assert_close(ours, timm(image), atol=2e-6, rtol=0)


def test_opencv_resize_would_be_far_off(config: Config, cat: Image.Image) -> None:
    """The tolerance above separates the right resize from OpenCV's, which does not antialias."""
    config.test_dataloader.dataset.pipeline[1].backend = 'cv2'
    error = (ImageTransform(config)(cat) - official(cat, 56)).abs().max()
    assert error > 0.1


def test_path_array_and_pil_agree(config: Config, photos: Path) -> None:
    path = photos / 'cat.png'
    rgb = np.asarray(Image.open(path).convert('RGB'))
    transform = ImageTransform(config)
    expected = transform(Image.fromarray(rgb))
    torch.testing.assert_close(transform(path), expected, atol=0, rtol=0)
    torch.testing.assert_close(transform(rgb[..., ::-1]), expected, atol=0, rtol=0)
    torch.testing.assert_close(ImageTransform(config, 'rgb')(rgb), expected, atol=0, rtol=0)


def test_another_size_keeps_the_crop_ratio(config: Config, cat: Image.Image) -> None:
    resize, crop = config.test_dataloader.dataset.pipeline[1:3]
    resize.scale, crop.crop_size = 62, 56
    set_img_size(config, 112)
    assert config.model.backbone.img_size == 112
    assert (resize.scale, crop.crop_size) == (124, 112)
    assert ImageTransform(config)(cat).shape == (3, 112, 112)


def test_from_a_config_path(config: Config, photos: Path) -> None:
    transform = get_transforms(config.filename, img_size=28)
    assert transform(photos / 'bird.jpg').shape == (3, 28, 28)
    assert '122.77' in repr(transform)


def test_unreadable_image_is_named(config: Config, tmp_path: Path) -> None:
    (tmp_path / 'bad.jpg').write_bytes(b'no image')
    with pytest.raises(ImageReadError, match=r'^Cannot read the image \S*bad\.jpg: '):
        ImageTransform(config)(tmp_path / 'bad.jpg')


@pytest.mark.parametrize(
    ('key', 'words'),
    [
        ('test_dataloader', 'test_dataloader.dataset.pipeline'),
        ('data_preprocessor', 'no data_preprocessor'),
    ],
)
def test_incomplete_config_is_explained(config: Config, key: str, words: str) -> None:
    config.pop(key)
    with pytest.raises(ValueError, match=words):
        ImageTransform(config)


def test_pre_training_configs_prepare_images_too(config: Config, photos: Path) -> None:
    """Without the masks, and with the same mean and deviation."""
    expected = get_transforms(config)(photos / 'cat.png')
    config.test_dataloader.dataset.pipeline[-1:] = [
        dict(type='evamm.RandomMasking', input_size=4, mask_ratio=0.5),
        dict(type='evamm.PackMIMInputs'),
    ]
    config.data_preprocessor.type = 'SelfSupDataPreprocessor'
    config.data_preprocessor.pop('num_classes')
    assert torch.equal(get_transforms(config)(photos / 'cat.png'), expected)
