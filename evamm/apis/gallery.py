"""A picture of image-text retrieval on a user's own images and texts."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evamm.apis.classification import ModelInput
from evamm.apis.images import (
    ImageInput,
    ImageSource,
    collect_images,
    load_image,
)
from evamm.apis.zero_shot import build_pair, embed_images, embed_texts
from evamm.visualization.gallery import draw_images_of_texts, draw_texts_of_images

# Rows of a picture that can still be looked at.
MAX_ROWS = 100
DIRECTIONS = ('text_to_image', 'image_to_text')


def retrieval_gallery(
    model: ModelInput,
    images: ImageInput | Sequence[ImageInput],
    texts: str | Sequence[str],
    out: str | os.PathLike | None = None,
    *,
    direction: str = 'text_to_image',
    topk: int = 5,
    pretrained: bool | str | os.PathLike = True,
    device: str | torch.device | None = None,
    batch_size: int = 16,
    channel_order: str = 'bgr',
) -> Image.Image:
    """Searches images by texts, or texts by images, and draws what is found.

    Args:
        model: Name of an image-text model, config path, Config, or a model from `evamm.get_model`.
        images: Paths, addresses, folders, patterns, uint8 arrays, PIL images, or a list of these.
            Those that cannot be read are left out, with a warning.
        texts: One text, or several.
        out: File to write the picture to.
        direction: 'text_to_image': a row per text, with the nearest images; 'image_to_text': a row
            per image, with the nearest texts.
        topk: How many are shown in a row.
        pretrained: True for the released weights of the name, or a checkpoint of any dialect.
        device: Device to run on; None: the GPU where there is one (a built model stays put).
        batch_size: Images per forward pass.
        channel_order: Order of the channels of arrays: 'bgr' (OpenMMLab, OpenCV) or 'rgb'.

    Returns:
        The picture.

    Example:
        >>> evamm.retrieval_gallery(model, 'photos/', ['a cat', 'a red car'], 'gallery.png')
    """
    if direction not in DIRECTIONS:
        raise ValueError(f'direction must be one of {DIRECTIONS}, found {direction!r}.')
    if topk < 1:
        raise ValueError(f'topk must be at least 1, found {topk}.')
    texts = [texts] if isinstance(texts, str) else list(texts)
    sources = collect_images(images)
    rows = len(texts if direction == 'text_to_image' else sources)
    if rows > MAX_ROWS:
        raise ValueError(f'A gallery has a row for each query, at most {MAX_ROWS}, found {rows}.')
    if not texts or not sources:
        raise ValueError('A gallery needs at least one image and one text.')
    model = build_pair(model, pretrained, device)
    found = embed_images(
        model,
        [source.content for source in sources],
        batch_size=batch_size,
        channel_order=channel_order,
        on_error='report',
    )
    readable = ~found.isnan().any(dim=1)
    sources = [source for source, good in zip(sources, readable, strict=True) if good]
    scores = (found[readable] @ embed_texts(model, texts).T).numpy()  # [N, T]
    shown = _Pictures(sources, channel_order)
    if direction == 'text_to_image':
        names = [Path(source.name).name for source in sources]
        picture = draw_images_of_texts(texts, shown, scores.T, topk=topk, names=names)
    else:
        scale = model.logit_scale.exp().item()
        picture = draw_texts_of_images(shown, texts, scores, logit_scale=scale, topk=topk)
    if out is not None:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        picture.save(out)
    return picture


class _Pictures(Sequence):
    """Images that are decoded when they are drawn, since few of many are."""

    def __init__(self, sources: list[ImageSource], channel_order: str) -> None:
        self.sources = sources
        self.channel_order = channel_order

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> np.ndarray:
        return load_image(self.sources[index], self.channel_order)
