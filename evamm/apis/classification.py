"""Predictions for images: one, a list, a folder, a pattern or arrays."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmpretrain.apis import ImageClassificationInferencer as MMPretrainInferencer
from mmpretrain.structures import DataSample

from evamm.apis.config import load_config
from evamm.apis.images import (
    ImageInput,
    ImageReadError,
    ImageSource,
    collect_images,
    is_single_image,
    load_image,
)
from evamm.apis.loader import load_batches
from evamm.apis.model import can_classify, class_names, get_model, is_detector, load_weights
from evamm.apis.model_index import list_models
from evamm.apis.transforms import ImageTransform

ModelInput = str | os.PathLike | Config | BaseModel


class ImageClassificationInferencer(MMPretrainInferencer):
    """Classifies images in batches, with progress, and says which image it cannot read.

    Args:
        model: Model name, config path, Config, or a model from `evamm.get_model`.
        pretrained: True for the released weights of the name, or a checkpoint of any dialect. Not
            used for a built model, unless a path is given.
        device: Device to run on. None leaves a built model where it is and takes the GPU, where
            there is one, for a model built here.
        classes: Names of the classes, instead of those of the checkpoint or data set.
        img_size: Another input size in pixels, for a model built here.

    Raises:
        NotImplementedError: The model has no classifier.

    Example:
        >>> inferencer = evamm.ImageClassificationInferencer(
        ...     'eva02-tiny-p14_in21k-pre_3rdparty_in1k')
        >>> [result['pred_class'] for result in inferencer('photos/', batch_size=16)]
        ['house finch, linnet, Carpodacus mexicanus']
    """

    visualize_kwargs: set = {'show_dir', 'topk'}

    def __init__(
        self,
        model: ModelInput,
        pretrained: bool | str | os.PathLike = True,
        device: str | torch.device | None = None,
        classes: Sequence[str] | None = None,
        *,
        img_size: int | None = None,
    ) -> None:
        model = build_for_inference(model, pretrained, device, img_size=img_size, needs_head=True)
        super().__init__(model, pretrained=False)
        self.classes = tuple(classes) if classes is not None else class_names(model)

    def __call__(
        self,
        inputs: ImageInput | Sequence[ImageInput],
        return_datasamples: bool = False,
        batch_size: int = 1,
        *,
        channel_order: str = 'bgr',
        on_error: str = 'raise',
        progress: bool | None = None,
        show_dir: str | os.PathLike | None = None,
        topk: int = 5,
    ) -> list[dict[str, Any]] | list[DataSample]:
        """Classifies images.

        Args:
            inputs: Paths, addresses, folders, patterns, uint8 arrays [H, W, 3], batches of arrays
                [B, H, W, 3], PIL images, or a list of these.
            return_datasamples: Give mmpretrain's DataSamples instead of dicts.
            batch_size: Images per forward pass.
            channel_order: Order of the channels of arrays: 'bgr' (OpenMMLab, OpenCV) or 'rgb'.
            on_error: 'raise' at an unreadable image, or 'report' it in its place in the results.
            progress: Show a progress bar; None: for more than one batch.
            show_dir: Folder for pictures with the predictions written on them.
            topk: Number of classes written on a picture; all, where there are fewer.

        Returns:
            One dict per image, in order: `pred_scores` (array [C], softmax), `pred_label`,
            `pred_score`, `pred_class` (where class names are known), `img_path` (for paths). With
            on_error='report', an unreadable image gives `img_path` and `error`.

        Raises:
            ImageReadError: An image cannot be read; the message names it.
        """
        if topk < 1:
            raise ValueError(f'topk must be at least 1, found {topk}.')
        if return_datasamples and on_error != 'raise':
            raise ValueError("return_datasamples=True needs on_error='raise': no place for errors.")
        sources = collect_images(inputs)
        results: list[Any] = [None] * len(sources)
        batches = load_batches(
            sources,
            lambda source: self.pipeline(load_image(source, channel_order)),
            batch_size,
            on_error=on_error,
            progress=progress,
        )
        for indices, samples, errors in batches:
            predictions = self.forward(pseudo_collate(samples)) if samples else []
            for index, prediction in zip(indices, predictions):
                results[index] = prediction
            for index, error in errors.items():
                results[index] = error
        if show_dir is not None:
            self.visualize(
                sources, results, show_dir=show_dir, topk=topk, channel_order=channel_order
            )
        if return_datasamples:
            return results
        return [self._to_dict(source, result) for source, result in zip(sources, results)]

    def _init_pipeline(self, cfg: Config) -> Callable[[np.ndarray], dict]:
        return ImageTransform(cfg).pack

    def _to_dict(self, source: ImageSource, result: DataSample | ImageReadError) -> dict[str, Any]:
        entry: dict[str, Any] = {} if source.path is None else {'img_path': source.path}
        if isinstance(result, ImageReadError):
            return {**entry, 'error': str(result)}
        scores = result.pred_score.detach().float().cpu().numpy()  # [C]
        label = int(scores.argmax())
        entry.update(pred_scores=scores, pred_label=label, pred_score=float(scores[label]))
        if self.classes is not None:
            entry['pred_class'] = self.classes[label]
        return entry

    def visualize(
        self,
        ori_inputs: list[ImageSource],
        preds: list[DataSample | ImageReadError],
        *,
        show_dir: str | os.PathLike,
        topk: int = 5,
        channel_order: str = 'bgr',
    ) -> list[str]:
        """Writes one PNG per image with its `topk` classes into `show_dir`; gives their paths."""
        from evamm.visualization.predictions import picture_paths, save_prediction

        written = []
        for source, pred, path in zip(
            ori_inputs, preds, picture_paths([s.name for s in ori_inputs], show_dir)
        ):
            if isinstance(pred, ImageReadError):
                continue
            scores = pred.pred_score.detach().float().cpu().numpy()
            save_prediction(
                load_image(source, channel_order), scores, path, classes=self.classes, topk=topk
            )
            written.append(path)
        return written

    @staticmethod
    def list_models(pattern: str | None = None) -> list[str]:
        """Names of the models of evamm that classify."""
        return list_models(pattern, task='Image Classification')


def build_for_inference(
    model: ModelInput,
    pretrained: bool | str | os.PathLike = True,
    device: str | torch.device | None = None,
    *,
    img_size: int | None = None,
    needs_head: bool = False,
) -> BaseModel:
    """The model to run: built from its name or config, or the given one.

    Raises:
        NotImplementedError: `needs_head` and the model has no classifier.
        ValueError: A built model without the config that `evamm.get_model` leaves in it.
    """
    if isinstance(model, BaseModel):
        if getattr(model, '_config', None) is None:
            raise ValueError(
                f'This {type(model).__name__} carries no config, so its transforms are unknown. '
                'Build it with evamm.get_model, or set model._config to its Config.'
            )
        if img_size is not None:
            raise ValueError('img_size is for a model built here; give it to evamm.get_model.')
        _check_head(model._config, needs_head)
        if isinstance(pretrained, (str, os.PathLike)):
            meta = load_weights(model, pretrained)
            model._dataset_meta = meta.get('dataset_meta') or getattr(model, '_dataset_meta', {})
        return model if device is None else model.to(device)
    config, entry = load_config(model)
    _check_head(config, needs_head, entry.name if entry is not None else None)
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    # The name, not the config, goes on: it also knows the weights.
    return get_model(model, pretrained, device, img_size=img_size)


def _check_head(config: Config, needs_head: bool, name: str | None = None) -> None:
    if needs_head and not can_classify(config):
        name = name or config.filename or 'This model'
        if is_detector(config):
            raise NotImplementedError(
                f'{name} finds boxes and has no classifier of images: '
                'evamm.DetInferencer(model)(images).'
            )
        raise NotImplementedError(
            f'{name} has no classifier, so it predicts no class. It gives features: '
            'evamm.extract_features(model, images), or evamm.FeatureExtractor(model)(images).'
        )


def inference_model(
    model: ModelInput,
    inputs: ImageInput | Sequence[ImageInput],
    *,
    pretrained: bool | str | os.PathLike = True,
    device: str | torch.device | None = None,
    classes: Sequence[str] | None = None,
    img_size: int | None = None,
    batch_size: int = 1,
    channel_order: str = 'bgr',
    on_error: str = 'raise',
    show_dir: str | os.PathLike | None = None,
) -> dict | list[dict]:
    """Classifies images with a model, in one call.

    Args:
        model: Model name, config path, Config, or a model from `evamm.get_model`.
        inputs: One image (path, address, uint8 array, PIL image), or a list, folder, pattern or
            batch of images.
        pretrained: True for the released weights of the name, or a checkpoint of any dialect.
        device: Device to run on; None: the GPU where there is one (a built model stays put).
        classes: Names of the classes, instead of those of the checkpoint or data set.
        img_size: Another input size in pixels, for a model built here.
        batch_size: Images per forward pass.
        channel_order: Order of the channels of arrays: 'bgr' (OpenMMLab, OpenCV) or 'rgb'.
        on_error: 'raise' at an unreadable image, or 'report' it in its place in the results.
        show_dir: Folder for pictures with the predictions written on them.

    Returns:
        A dict for one image, a list of dicts for several, as of
        `ImageClassificationInferencer.__call__`.

    Raises:
        NotImplementedError: The model has no classifier.
        ImageReadError: An image cannot be read; the message names it.

    Example:
        >>> predict = evamm.inference_model('eva02-tiny-p14_in21k-pre_3rdparty_in1k', 'bird.JPEG')
        >>> predict['pred_class'], predict['pred_score']
    """
    inferencer = ImageClassificationInferencer(
        model, pretrained, device, classes, img_size=img_size
    )
    results = inferencer(
        inputs,
        batch_size=batch_size,
        channel_order=channel_order,
        on_error=on_error,
        show_dir=show_dir,
    )
    return results[0] if is_single_image(inputs) else results
