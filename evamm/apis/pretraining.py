"""What a pre-training model predicts for the masked patches of a batch."""

import copy
import os

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from evamm.checkpoints import load_checkpoint
from evamm.visualization.masked import MaskedImage, masked_images

from .batches import load_batch, student_images, to_picture


def predict_masked(
    config: Config,
    checkpoint: str | os.PathLike | None = None,
    *,
    split: str = 'train',
    count: int = 6,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> list[MaskedImage]:
    """Crops, masks, targets and predictions of some images of a config, as pictures.

    Args:
        config: A pre-training config, with a teacher or a cache of its features.
        checkpoint: Pre-training file of any dialect, head included; None for random weights.
        split: 'train', 'val' or 'test'.
        count: Number of images, at most as many as the data set has.
        seed: Seed of the order, the crops and the masks.
        device: None for the GPU where there is one.

    Raises:
        ConfigError: The teacher has no weights.
        CheckpointError: The file does not fit.
        ValueError: This is no config of pre-training, or it has no such loader.
    """
    from evamm.registry import MODELS

    config = copy.deepcopy(config)
    _read_all_targets(config.get(f'{split}_dataloader') or {})
    settings = {'data_preprocessor': config.get('data_preprocessor'), **config.model}
    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmpretrain'):
        model = MODELS.build(settings)
    if not hasattr(model, 'predict_features'):
        raise ValueError(
            f'{config.filename}: model.type={config.model.type!r} predicts no masked patches; '
            'take a config of pre-training.'
        )
    model.init_weights()
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, complete=True)
    device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    data, preprocessor, _ = load_batch(config, split, count, seed=seed)
    samples = data['data_samples']
    if any('mask' not in sample for sample in samples):
        raise ValueError(f'{split}_dataloader.dataset.pipeline draws no masks.')
    inputs = data['inputs']
    inputs = inputs.to(device) if isinstance(inputs, Tensor) else [x.to(device) for x in inputs]
    targets, predictions = _features(model.to(device).eval(), inputs, samples)
    return masked_images(
        [to_picture(image, preprocessor) for image in student_images(data['inputs'])],
        [np.asarray(sample.mask, bool) for sample in samples],
        targets,
        predictions,
        [os.path.basename(sample.get('img_path', '')) for sample in samples],
    )


@torch.no_grad()
def _features(
    model: nn.Module, inputs: Tensor | list[Tensor], samples: list
) -> tuple[Tensor, Tensor]:
    """Targets [B, N, T] of all patches and predictions [M, T] of the masked ones."""
    predictions = model.predict_features(student_images(inputs), samples)
    if model.teacher is not None:
        return model.teacher_features(inputs)[-1], predictions
    if any('target' not in sample for sample in samples):
        raise ValueError(
            'there is no teacher and the samples have no targets: set model.teacher, or read a '
            'feature cache with evamm.LoadTeacherFeatures.'
        )
    return torch.stack([torch.as_tensor(sample.target) for sample in samples]), predictions


def _read_all_targets(settings: object) -> None:
    """Lets a pipeline read the features of visible patches too."""
    if isinstance(settings, dict):
        if str(settings.get('type')).endswith('LoadTeacherFeatures'):
            settings['masked_only'] = False
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for part in settings:
            _read_all_targets(part)
