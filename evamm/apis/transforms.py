"""A model's own preprocessing, built from the test pipeline of its config."""

import copy
import os
from collections.abc import Callable

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from evamm.apis.config import load_config
from evamm.apis.images import ImageInput, ImageSource, load_image

LOADING_TRANSFORMS = tuple(
    f'{scope}LoadImageFromFile' for scope in ('', 'evamm.', 'mmpretrain.', 'mmdet.', 'mmcv.')
)
# What an image alone has no use for: captions, boxes, masks and the targets of pre-training.
_EXTRA_TRANSFORMS = (
    'BlockMasking',
    'ChooseText',
    'EvenMasking',
    'LoadAnnotations',
    'LoadDetAnnotations',
    'LoadTeacherFeatures',
    'RandomMasking',
    'TokenizeText',
)
_EXTRA_PACKING = ('PackMIMInputs', 'PackPairInputs')
_SIZED_TRANSFORMS = {
    'ResizeEdge': 'scale',
    'Resize': 'scale',
    'ResizeLongestEdge': 'size',
    'CenterCrop': 'crop_size',
}


def test_pipeline(config: Config) -> list[ConfigDict]:
    """The image transforms of `config.test_dataloader.dataset.pipeline` after loading.

    Raises:
        ValueError: The config has no such pipeline.
    """
    try:
        pipeline = config.test_dataloader.dataset.pipeline
    except AttributeError:
        raise ValueError(
            'The config has no test_dataloader.dataset.pipeline, so evamm does not know how to '
            'prepare an image for its model. Inherit a file of configs/_base_/datasets.'
        ) from None
    steps = [step for step in pipeline if step['type'] not in LOADING_TRANSFORMS]
    steps = [step for step in steps if _base_type(step) not in _EXTRA_TRANSFORMS]
    return [
        ConfigDict(type='PackInputs') if _base_type(step) in _EXTRA_PACKING else step
        for step in steps
    ]


def set_img_size(config: Config, img_size: int) -> None:
    """Writes another input size into the model and the test pipeline of `config`, in place.

    The ratio of the resized short side to the crop (crop_pct) is kept.

    Args:
        config: Config of a classification model or a detector.
        img_size: Height and width of the model's input in pixels.

    Raises:
        ValueError: The size is no positive whole number.
    """
    if not isinstance(img_size, int) or img_size < 1:
        raise ValueError(f'img_size={img_size!r} must be a whole number of at least 1 pixel.')
    config.model.backbone.img_size = img_size
    if 'pad_size' in (config.model.get('data_preprocessor') or {}):  # of a detector
        config.model.data_preprocessor.pad_size = img_size
    steps = [step for step in test_pipeline(config) if _base_type(step) in _SIZED_TRANSFORMS]
    crops = [step.crop_size for step in steps if _base_type(step) == 'CenterCrop']
    for step in steps:
        key = _SIZED_TRANSFORMS[_base_type(step)]
        if isinstance(step[key], int) and crops and isinstance(crops[0], int):
            step[key] = int(step[key] * img_size / crops[0])
        else:
            step[key] = img_size if isinstance(step[key], int) else (img_size, img_size)


def _base_type(step: ConfigDict) -> str:
    return str(step['type']).rpartition('.')[2]


class ImageTransform:
    """Turns an image into the tensor that the model of a config takes.

    Args:
        config: Config with a test pipeline and a data preprocessor (mean, std, channel order).
        channel_order: Order of the channels of arrays, 'bgr' (OpenMMLab, OpenCV) or 'rgb'.
    """

    def __init__(self, config: Config, channel_order: str = 'bgr') -> None:
        from mmengine.dataset import Compose
        from mmpretrain.registry import MODELS, TRANSFORMS

        preprocessor = config.model.get('data_preprocessor') or config.get('data_preprocessor')
        if preprocessor is None:
            raise ValueError('The config has no data_preprocessor, which holds the mean and std.')
        preprocessor = copy.deepcopy(preprocessor)
        preprocessor.setdefault('type', 'ClsDataPreprocessor')
        if _base_type(preprocessor) == 'SelfSupDataPreprocessor':  # takes views and masks
            keys = ('mean', 'std', 'to_rgb')
            preprocessor = {key: preprocessor[key] for key in keys if key in preprocessor}
            preprocessor['type'] = 'ClsDataPreprocessor'
        # The batch augmentations of training need the number of classes and are not wanted here.
        preprocessor.pop('batch_augments', None)
        self.channel_order = channel_order
        with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmpretrain'):
            self.pipeline = Compose([TRANSFORMS.build(step) for step in test_pipeline(config)])
            self.data_preprocessor = MODELS.build(preprocessor)

    def pack(self, image: np.ndarray) -> dict:
        """Runs the pipeline on a decoded image.

        Args:
            image: RGB image, uint8 [H, W, 3].

        Returns:
            `inputs`: uint8 tensor [3, H', W'] in BGR order, not normalised; `data_samples`.
        """
        shape = image.shape[:2]
        image = np.ascontiguousarray(image[:, :, ::-1])  # OpenMMLab's loaders give BGR
        return self.pipeline(dict(img=image, img_shape=shape, ori_shape=shape))

    def __call__(self, image: ImageInput) -> torch.Tensor:
        """Prepares one image.

        Args:
            image: Path, address, PIL image, or uint8 array [H, W, 3] or [H, W].

        Returns:
            Normalised float32 tensor [3, H', W'], ready for `model(tensor[None])`.

        Raises:
            ImageReadError: The image cannot be read.
        """
        is_path = isinstance(image, (str, os.PathLike))
        source = ImageSource(os.fspath(image) if is_path else 'the image', image)
        packed = self.pack(load_image(source, self.channel_order))
        return self.data_preprocessor(dict(inputs=[packed['inputs']]))['inputs'][0]

    def __repr__(self) -> str:
        pre = self.data_preprocessor
        return (
            f'ImageTransform({self.pipeline}, mean={pre.mean.flatten().tolist()}, '
            f'std={pre.std.flatten().tolist()})'
        )


def get_transforms(
    model: str | Config, img_size: int | None = None, channel_order: str = 'bgr'
) -> Callable[[ImageInput], torch.Tensor]:
    """The preprocessing that belongs to a model, from its name.

    Args:
        model: Model name, config path (.py) or Config.
        img_size: Another input size than the config's, in pixels.
        channel_order: Order of the channels of arrays, 'bgr' (OpenMMLab, OpenCV) or 'rgb'.

    Returns:
        A callable from a path, PIL image or array to a normalised float32 tensor [3, H, W].

    Example:
        >>> transform = evamm.get_transforms('eva02-tiny-p14_in21k-pre_3rdparty_in1k')
        >>> transform('bird.jpg').shape
        torch.Size([3, 336, 336])
    """
    config, _ = load_config(model)
    if img_size is not None:
        set_img_size(config, img_size)
    return ImageTransform(config, channel_order)
