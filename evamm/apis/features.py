"""Features in one line: all tokens, a map or one vector, of the last block or of any."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from torch import Tensor, nn

from evamm.apis.classification import ModelInput, build_for_inference
from evamm.apis.images import ImageInput, ImageReadError, collect_images, load_image
from evamm.apis.model_index import list_models
from evamm.apis.rows import encode_in_batches
from evamm.apis.transforms import ImageTransform
from evamm.models.backbones import EVAViT

# What a user asks for -> the trunk's output type.
POOLS = {'mean': 'avg_featmap', 'cls': 'cls_token', 'tokens': 'raw', 'map': 'featmap'}


class FeatureExtractor:
    """Extracts features of many images with one model.

    Args:
        model: Model name, config path, Config, or a model from `evamm.get_model`.
        pretrained: True for the released weights of the name, or a checkpoint of any dialect.
        device: Device to run on; None: the GPU where there is one (a built model stays put).
        img_size: Another input size in pixels, for a model built here.

    Attributes:
        errors: Images of the last call that could not be read, by position.

    Example:
        >>> extractor = evamm.FeatureExtractor('eva02-base-p14_in21k-pre_3rdparty_in21k')
        >>> extractor('photos/', batch_size=32, pool='mean').shape
        torch.Size([120, 768])
    """

    def __init__(
        self,
        model: ModelInput,
        pretrained: bool | str | os.PathLike = True,
        device: str | torch.device | None = None,
        *,
        img_size: int | None = None,
    ) -> None:
        self.model = build_for_inference(model, pretrained, device, img_size=img_size)
        self.config: Config = self.model._config
        self.errors: dict[int, ImageReadError] = {}

    def __call__(
        self,
        inputs: ImageInput | Sequence[ImageInput],
        batch_size: int = 1,
        *,
        pool: str = 'mean',
        blocks: Sequence[int] | None = None,
        channel_order: str = 'bgr',
        on_error: str = 'raise',
        progress: bool | None = None,
    ) -> Tensor | tuple[Tensor, ...]:
        """Extracts features of B images; see `extract_features` for the arguments and shapes.

        Returns:
            Tensor with the leading axis B, on the CPU; a tuple of these for `blocks`.
        """
        transform = ImageTransform(self.config, channel_order)
        device = next(self.model.parameters()).device
        preprocessor = transform.data_preprocessor.to(device)

        def encode(images: list[Tensor]) -> tuple[Tensor, ...]:
            if images:
                batch = preprocessor({'inputs': images})['inputs']  # [b, 3, H, W]
            else:
                trunk = find_trunk(self.model)
                batch = next(trunk.parameters()).new_zeros(0, 3, *trunk.img_size)
            return _forward(self.model, batch, pool, blocks)

        features, self.errors = encode_in_batches(
            collect_images(inputs),
            lambda source: transform.pack(load_image(source, channel_order)),
            encode,
            batch_size,
            on_error=on_error,
            progress=progress,
        )
        return features[0] if blocks is None else features

    @staticmethod
    def list_models(pattern: str | None = None) -> list[str]:
        """Names of the models of evamm; every one gives features."""
        return list_models(pattern)


def extract_features(
    model: ModelInput | nn.Module,
    images: ImageInput | Sequence[ImageInput] | Tensor,
    *,
    pool: str = 'mean',
    blocks: Sequence[int] | None = None,
    pretrained: bool | str | os.PathLike = True,
    device: str | torch.device | None = None,
    img_size: int | None = None,
    batch_size: int = 1,
    channel_order: str = 'bgr',
    on_error: str = 'raise',
) -> Tensor | tuple[Tensor, ...]:
    """Extracts features of images, without gradients.

    Args:
        model: Model name, config path, Config, a model from `evamm.get_model`, or (with a tensor)
            any module that contains an EVA trunk.
        images: Images as for `inference_model`, prepared by the model's own transforms; or a
            normalised tensor [B, 3, H, W], of any size that the patches divide.
        pool: With D the width of the trunk and h x w = N its grid of patches:

            - 'mean': mean of the patch tokens after the model's normalisation, [B, D]: what its
              classifier sees.
            - 'cls': class token, [B, D].
            - 'tokens': class token and patch tokens, row by row, [B, 1 + N, D].
            - 'map': patch tokens in their places, [B, D, h, w].

            The trunk's final norm, where the config has one, is part of the last block's output;
            a trunk that normalises the mean instead (`fc_norm`) leaves its tokens as they are.
        blocks: Blocks to take features from, e.g. [3, 5, 7, 11]; negative ones count from the end.
            None for the last.
        pretrained: True for the released weights of the name, or a checkpoint of any dialect.
        device: Device to run on; None: that of a tensor, else the GPU where there is one (a built
            model stays put).
        img_size: Another input size in pixels, for a model built here.
        batch_size: Images per forward pass.
        channel_order: Order of the channels of arrays: 'bgr' (OpenMMLab, OpenCV) or 'rgb'.
        on_error: 'raise' at an unreadable image, or 'report': go on, with NaN in its row, a
            warning, and the error in `FeatureExtractor.errors`.

    Returns:
        Tensor [B, ...]; with `blocks`, a tuple of these in the order of `blocks`. On the CPU for
        images, on the tensor's device for a tensor.

    Example:
        >>> tokens = evamm.extract_features(model, 'bird.jpg', pool='tokens')
        >>> shallow, deep = evamm.extract_features(model, x, pool='map', blocks=[3, -1])
    """
    if isinstance(images, Tensor):
        if not isinstance(model, nn.Module):
            place = images.device if device is None else device
            model = build_for_inference(model, pretrained, place, img_size=img_size)
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(
                'A tensor of images must be normalised and [B, 3, H, W], found '
                f'{images.dtype} {list(images.shape)}.'
            )
        features = _forward(model, images, pool, blocks)
        return features[0] if blocks is None else features
    if isinstance(model, nn.Module) and not isinstance(model, BaseModel):
        raise TypeError(
            f'{type(model).__name__} carries no transforms: give it a normalised '
            'tensor [B, 3, H, W], e.g. from evamm.get_transforms(name).'
        )
    extractor = FeatureExtractor(model, pretrained, device, img_size=img_size)
    return extractor(
        images,
        batch_size,
        pool=pool,
        blocks=blocks,
        channel_order=channel_order,
        on_error=on_error,
    )


def find_trunk(model: nn.Module) -> EVAViT:
    """The EVA trunk inside `model`.

    Raises:
        ValueError: It has none.
    """
    for module in model.modules():
        if isinstance(module, EVAViT):
            return module
    raise ValueError(f'{type(model).__name__} contains no evamm.EVAViT to take features from.')


@torch.no_grad()
def _forward(
    model: nn.Module, images: Tensor, pool: str, blocks: Sequence[int] | None
) -> tuple[Tensor, ...]:
    if pool not in POOLS:
        raise ValueError(f"pool must be one of {', '.join(POOLS)}, found '{pool}'.")
    trunk = find_trunk(model)
    depth = len(trunk.blocks)
    wanted = [-1] if blocks is None else list(blocks)
    if not wanted:
        raise ValueError(f'blocks=[] names no block; the trunk has blocks 0 to {depth - 1}.')
    outside = [block for block in wanted if not -depth <= block < depth]
    if outside:
        raise ValueError(f'blocks={outside} do not exist: the trunk has blocks 0 to {depth - 1}.')
    wanted = [block % depth for block in wanted]
    if pool == 'cls' and trunk.cls_token is None:
        raise ValueError("pool='cls' needs a class token; this trunk has with_cls_token=False.")
    with _output(trunk, POOLS[pool], tuple(sorted(set(wanted)))):
        outputs = dict(zip(trunk.out_indices, trunk(images)))
    return tuple(outputs[block] for block in wanted)


@contextmanager
def _output(trunk: EVAViT, out_type: str, out_indices: tuple[int, ...]) -> Iterator[None]:
    """Runs the trunk in evaluation mode with another kind of output, then puts all back."""
    before = trunk.out_type, trunk.out_indices, trunk.training
    trunk.out_type, trunk.out_indices = out_type, out_indices
    trunk.eval()
    try:
        yield
    finally:
        trunk.out_type, trunk.out_indices = before[:2]
        trunk.train(before[2])
