"""The batch that a config's data pipeline would feed its model, turned back into pictures."""

import copy
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, set_random_seed
from torch import Tensor, nn

from evamm.visualization.detections import draw_detections
from evamm.visualization.masked import hide_patches

_DRAWN = 512  # longest side of a picture with boxes, so that their names can be read in a sheet


@dataclass(frozen=True)
class PictureBatch:
    """A batch to look at.

    Attributes:
        images: RGB pictures, uint8 [H, W, 3] each, with what is masked or annotated.
        captions: One or two lines for each.
        inputs: The images alone, as the model gets them.
    """

    images: list[np.ndarray]
    captions: list[str]
    inputs: list[np.ndarray]


def take_batch(
    config: Config, split: str = 'train', count: int = 24, *, seed: int = 0
) -> PictureBatch:
    """Runs the loader, the transforms and the data preprocessor (with Mixup and CutMix in
    training) of `config`, then undoes the normalisation. Masked patches are covered by grey; boxes
    and masks of objects are drawn.

    Args:
        config: A classification, detection, image-text or pre-training config.
        split: 'train', 'val' or 'test'.
        count: Number of images, at most as many as the data set has.
        seed: Seed of the order and of the augmentation.

    Returns:
        The pictures; captions hold the texts, or the class names, or the mixture of two.

    Raises:
        ValueError: The config has no such loader.
        FileNotFoundError: The data is not there.
    """
    data, preprocessor, classes = load_batch(config, split, count, seed=seed)
    inputs = [to_picture(image, preprocessor) for image in student_images(data['inputs'])]
    pictures, captions = list(inputs), []
    for index, sample in enumerate(data['data_samples']):
        if 'bboxes' in sample.get('gt_instances', ()):  # tests load no objects
            pictures[index] = _with_objects(inputs[index], sample.gt_instances, classes)
            count = len(sample.gt_instances)
            captions.append(f'{count} object{"s" if count != 1 else ""}')
            continue
        captions.append(_caption(sample, classes))
        if 'mask' in sample:
            mask = np.asarray(sample.mask, bool)
            pictures[index] = hide_patches(pictures[index], mask, strength=0.7)
            captions[index] = f'{mask.sum()} of {mask.size} masked'
    return PictureBatch(pictures, captions, inputs)


def _with_objects(image: np.ndarray, objects: Any, classes: Sequence[str] | None) -> np.ndarray:
    """The image, not too large, with boxes, masks and names."""
    step = -(-max(image.shape[:2]) // _DRAWN)
    masks = objects.get('masks')
    if masks is not None:
        masks = masks.to_ndarray()[:, ::step, ::step].astype(bool)  # [N, H, W]
    boxes = torch.as_tensor(getattr(objects.bboxes, 'tensor', objects.bboxes))
    picture = draw_detections(
        np.ascontiguousarray(image[::step, ::step]),
        boxes.cpu().numpy() / step,
        objects.labels.tolist(),
        masks=masks,
        names=classes,
    )
    return np.asarray(picture)


def student_images(inputs: Tensor | Sequence[Tensor]) -> Tensor:
    """Images [B, 3, H, W] of a batch that may hold those for a teacher too."""
    return inputs if isinstance(inputs, Tensor) else inputs[0]


def load_batch(
    config: Config, split: str, count: int, *, seed: int = 0
) -> tuple[dict, nn.Module, Sequence[str] | None]:
    """A batch as it enters the model, the data preprocessor, and the names of the classes.

    See :func:`take_batch`.
    """
    loader_config = config.get(f'{split}_dataloader')
    if loader_config is None:
        raise ValueError(f'The config {config.filename} has no {split}_dataloader.')
    if count < 1:
        raise ValueError(f'The number of images must be at least 1, found {count}.')
    loader_config = copy.deepcopy(loader_config)
    training = split == 'train'
    # mmengine shuffles by this seed; drop_last would drop everything of a small data set.
    loader_config.update(
        batch_size=count, num_workers=0, persistent_workers=False, pin_memory=False, drop_last=False
    )
    # Shards have an order of their own: all their samples cannot be shuffled.
    if loader_config.sampler.get('type') != 'evamm.ShardSampler':
        loader_config.sampler = dict(type='DefaultSampler', shuffle=True)
    loader_config.pop('batch_sampler', None)
    set_random_seed(seed)
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmpretrain'):
        loader = Runner.build_dataloader(loader_config, seed=seed)
        preprocessor = _build_preprocessor(config)
        data = preprocessor(next(iter(loader)), training=training)
    return data, preprocessor, loader.dataset.metainfo.get('classes')


def to_picture(image: Tensor, preprocessor: nn.Module) -> np.ndarray:
    """Undoes the normalisation of a data preprocessor.

    Args:
        image: Normalised image, [3, H, W].
        preprocessor: mmpretrain's data preprocessor, with `mean`, `std` and `to_rgb`.

    Returns:
        RGB image, uint8 [H, W, 3].
    """
    image = image.detach().float()
    if getattr(preprocessor, 'mean', None) is not None:
        image = image * preprocessor.std + preprocessor.mean
    # The preprocessor of pre-training has no `to_rgb` but what it means.
    swapped = getattr(preprocessor, '_channel_conversion', None)
    if not (
        preprocessor.to_rgb if swapped is None else swapped
    ):  # then the channels are still as OpenMMLab loads them, BGR
        image = image.flip(0)
    return image.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()


def _build_preprocessor(config: Config) -> nn.Module:
    """As ImageClassifier builds it, without building the model."""
    from mmpretrain.registry import MODELS

    settings: dict[str, Any] = copy.deepcopy(
        config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    )
    pretraining = str(config.model.get('type')).endswith('Pretrainer')
    settings.setdefault('type', f'{"SelfSup" if pretraining else "Cls"}DataPreprocessor')
    train_cfg = config.model.get('train_cfg') or {}
    if 'augments' in train_cfg:  # those of other models are not about pictures
        settings.setdefault('batch_augments', copy.deepcopy(train_cfg))
    return MODELS.build(settings)


def _caption(sample: Any, classes: Sequence[str] | None) -> str:
    def name(label: int) -> str:
        return classes[label].split(',')[0] if classes is not None else f'class {label}'

    text = sample.get('text')
    if text:  # an image with its caption, or several
        texts = [text] if isinstance(text, str) else list(text)
        return '\n'.join(line for each in texts[:2] for line in textwrap.wrap(each, 34)[:2])
    labels = sample.get('gt_label')
    scores = sample.get('gt_score')
    if scores is not None and int(torch.count_nonzero(scores)) > 1:
        best = torch.topk(scores, 2)
        return '\n'.join(
            f'{score:.2f} {name(int(label))}'
            for score, label in zip(best.values.tolist(), best.indices.tolist())
        )
    if labels is None:
        return ''
    return ', '.join(name(int(label)) for label in labels)
