"""Images and texts in one space: classes by their names, and embeddings in one line."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from mmengine.model import BaseModel
from mmpretrain.apis import ImageClassificationInferencer as MMPretrainInferencer
from mmpretrain.structures import DataSample
from torch import Tensor

from evamm.apis.classification import (
    ImageClassificationInferencer,
    ModelInput,
    build_for_inference,
)
from evamm.apis.images import ImageInput, collect_images, load_image
from evamm.apis.model_index import list_models
from evamm.apis.rows import encode_in_batches
from evamm.apis.transforms import ImageTransform
from evamm.datasets.tokenizer import get_tokenizer
from evamm.models.clip import EVACLIP
from evamm.models.clip.prompts import Template, load_class_names, load_templates
from evamm.models.clip.text_features import encode_tokens
from evamm.models.clip.zero_shot import build_classifier


class ZeroShotInferencer(ImageClassificationInferencer):
    """Classifies images among classes that are given by their names or by sentences.

    Called as `ImageClassificationInferencer`, with the same results and pictures.

    Args:
        model: Name of an image-text model, config path, Config, or a model from `evamm.get_model`.
        classes: Names or whole sentences, a text file with one per line, or 'imagenet'.
        templates: Sentences that the names are put into, see `evamm.models.clip.prompts`:
            'openai', 'simple', one with ``{}``, a list or a text file. None takes the classes as
            they are, and 'openai' for ImageNet's.
        pretrained: True for the released weights of the name, or a checkpoint of any dialect.
        device: Device to run on; None: the GPU where there is one (a built model stays put).
        img_size: Another input size in pixels, for a model built here.
        logit_scale: Factor of the cosines before the softmax; None takes the model's own.
        cache: Keep the classifier on disk, see `evamm.models.clip.zero_shot.build_classifier`.

    Raises:
        NotImplementedError: The model has no text tower.

    Example:
        >>> zero_shot = evamm.ZeroShotInferencer(
        ...     'eva02-clip-b-p16_3rdparty_merged2b-s8b', ['a cat', 'a dog'])
        >>> [result['pred_class'] for result in zero_shot('photos/', batch_size=16)]
        ['a dog', 'a cat']
    """

    def __init__(
        self,
        model: ModelInput,
        classes: str | os.PathLike | Sequence[str],
        templates: str | os.PathLike | Sequence[Template] | None = None,
        pretrained: bool | str | os.PathLike = True,
        device: str | torch.device | None = None,
        *,
        img_size: int | None = None,
        logit_scale: float | None = None,
        cache: bool | str | os.PathLike = True,
    ) -> None:
        names = load_class_names(classes)  # before the model, so that a wrong path shows at once
        if templates is None:
            templates = 'openai' if isinstance(classes, str) and classes == 'imagenet' else '{}'
        sentences = load_templates(templates)
        model = build_pair(model, pretrained, device, img_size=img_size)
        MMPretrainInferencer.__init__(self, model, pretrained=False)
        self.classes = tuple(names)
        self.weights = build_classifier(model, names, sentences, cache=cache)  # [C, E]
        self.logit_scale = model.logit_scale.exp().item() if logit_scale is None else logit_scale

    @torch.no_grad()
    def forward(self, inputs: dict) -> list[DataSample]:
        """Data samples with `pred_score` [C] and `pred_label` of a batch of the pipeline."""
        features = _encode_images(self.model, inputs['inputs'])  # [B, E]
        scores = (self.logit_scale * features @ self.weights.T).softmax(dim=-1)
        return [
            DataSample().set_pred_score(score).set_pred_label(score.argmax(keepdim=True))
            for score in scores
        ]

    @staticmethod
    def list_models(pattern: str | None = None) -> list[str]:
        """Names of the image-text models of evamm."""
        return list_models(pattern, task='Zero-Shot Image Classification')


def embed_images(
    model: ModelInput,
    images: ImageInput | Sequence[ImageInput],
    *,
    pretrained: bool | str | os.PathLike = True,
    device: str | torch.device | None = None,
    img_size: int | None = None,
    batch_size: int = 16,
    channel_order: str = 'bgr',
    on_error: str = 'raise',
    progress: bool | None = None,
) -> Tensor:
    """Embeds images into the space that they share with texts.

    Args:
        model: Name of an image-text model, config path, Config, or a model from `evamm.get_model`.
        images: Paths, addresses, folders, patterns, uint8 arrays, PIL images, or a list of these.
        pretrained: True for the released weights of the name, or a checkpoint of any dialect.
        device: Device to run on; None: the GPU where there is one (a built model stays put).
        img_size: Another input size in pixels, for a model built here.
        batch_size: Images per forward pass.
        channel_order: Order of the channels of arrays: 'bgr' (OpenMMLab, OpenCV) or 'rgb'.
        on_error: 'raise' at an unreadable image, or 'report': NaN in its row, and a warning.
        progress: Show a progress bar; None: for more than one batch.

    Returns:
        Features of length 1, float32 [n, E], on the CPU; the product of those of an image and of a
        text is their cosine.

    Raises:
        NotImplementedError: The model has no text tower.
        ImageReadError: An image cannot be read; the message names it.

    Example:
        >>> images = evamm.embed_images(model, 'photos/')
        >>> texts = evamm.embed_texts(model, ['a cat', 'a dog'])
        >>> images @ texts.T
    """
    sources = collect_images(images)
    model = build_pair(model, pretrained, device, img_size=img_size)
    transform = ImageTransform(model._config, channel_order)

    def encode(inputs: list[Tensor]) -> tuple[Tensor]:
        if not inputs:
            return (torch.empty(0, model.embed_dims),)
        return (_encode_images(model, inputs),)

    with _evaluating(model):
        (features,), _ = encode_in_batches(
            sources,
            lambda source: transform.pack(load_image(source, channel_order)),
            encode,
            batch_size,
            on_error=on_error,
            progress=progress,
            description='Images',
        )
    return features


@torch.no_grad()
def embed_texts(
    model: ModelInput,
    texts: str | Sequence[str],
    *,
    pretrained: bool | str | os.PathLike = True,
    device: str | torch.device | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Embeds texts into the space that they share with images; see `embed_images`.

    Args:
        model: Name of an image-text model, config path, Config, or a model from `evamm.get_model`.
        texts: One text, or several. What does not fit into the model's context is cut off.
        pretrained: True for the released weights of the name, or a checkpoint of any dialect.
        device: Device to run on; None: the GPU where there is one (a built model stays put).
        batch_size: Texts per forward pass.

    Returns:
        Features of length 1, float32 [n, E], on the CPU.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise TypeError(f'A text must be a str, found {type(wrong[0]).__name__}: {wrong[0]!r:.80}')
    model = build_pair(model, pretrained, device)
    tokens = get_tokenizer(model.text.context_length)(texts)
    with _evaluating(model):
        return encode_tokens(model, tokens, batch_size).cpu()


def build_pair(
    model: ModelInput,
    pretrained: bool | str | os.PathLike = True,
    device: str | torch.device | None = None,
    *,
    img_size: int | None = None,
) -> EVACLIP:
    """The image-text model to run.

    Raises:
        NotImplementedError: The model has no text tower.
    """
    built: BaseModel = build_for_inference(model, pretrained, device, img_size=img_size)
    if not isinstance(built, EVACLIP):
        raise NotImplementedError(
            f'{type(built).__name__} has no text tower, so it cannot compare images with texts. '
            f'Take an image-text model: {", ".join(ZeroShotInferencer.list_models()) or "EVACLIP"}.'
        )
    return built


@contextmanager
def _evaluating(model: EVACLIP) -> Iterator[None]:
    """Evaluation mode, and back to what each part was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@torch.no_grad()
def _encode_images(model: EVACLIP, inputs: list[Tensor]) -> Tensor:
    """Normalised features [B, E] of packed images."""
    images = model.data_preprocessor({'inputs': inputs})['inputs']  # [B, 3, H, W]
    return model.encode_image(images, normalize=True).float()
