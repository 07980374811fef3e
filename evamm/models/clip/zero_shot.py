"""Zero-shot classification: the text tower turns class names into the weights of a classifier."""

import math
import os
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.dist import (
    all_gather,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from evamm.datasets.tokenizer import get_tokenizer
from evamm.engine.errors import ConfigError

from .classifier_cache import (
    classifier_key,
    default_folder,
    load_classifier,
    save_classifier,
)
from .prompts import Template, fill, load_class_names, load_templates
from .text_features import encode_tokens

# A text tower takes a second or less for this many prompts on a GPU.
_SHOW_PROGRESS = 2000
_CLASSES_AT_ONCE = 1024


@torch.no_grad()
def build_classifier(
    model: nn.Module,
    classes: Sequence[str],
    templates: Sequence[Template],
    *,
    batch_size: int = 256,
    cache: bool | str | os.PathLike = True,
    distributed: bool = False,
) -> Tensor:
    """Weights of a zero-shot classifier.

    The features of the prompts of a class are normalised, averaged and normalised again (EVA-CLIP:
    rei/training/zero_shot.py).

    Args:
        model: An `EVACLIP`, in evaluation mode.
        classes: Names of the C classes.
        templates: Sentences for a name, see `load_templates`.
        batch_size: Prompts per pass of the text tower.
        cache: Keep the result on disk and look for it there: in ``zero_shot`` of evamm's cache
            folder, or in a given folder. A file is found by a hash of the text tower's weights and
            all prompts, so it is never one of another model.
        distributed: Every process of the group calls this; each encodes its share.

    Returns:
        Normalised weights, float32 [C, E], on the model's device.
    """
    prompts = [fill(template, name) for name in classes for template in templates]
    device = next(model.text.parameters()).device
    distributed = distributed and get_world_size() > 1
    folder = default_folder() if cache is True else Path(cache) if cache else None
    weights, key = None, None
    if folder is not None and (is_main_process() or not distributed):
        key = classifier_key(model.text, prompts, len(templates))
        if key is not None:
            weights = load_classifier(folder, key, (len(classes), model.embed_dims))
    if distributed:
        found = [weights]
        broadcast_object_list(found)
        weights = found[0]
    if weights is not None:
        return weights.to(device)
    if distributed:
        weights = _encode_shared(model, prompts, len(classes), batch_size)
    else:
        weights = _encode_classes(model, prompts, len(classes), batch_size)
    if key is not None:
        save_classifier(folder, key, weights)
    return weights


def _encode_shared(
    model: nn.Module, prompts: list[str], num_classes: int, batch_size: int
) -> Tensor:
    """[C, E] of all processes, each with as many classes, so that a sharded model stays in step."""
    templates = len(prompts) // num_classes
    share = math.ceil(num_classes / get_world_size())
    start = get_rank() * share
    mine = [
        prompt
        for index in range(start, start + share)
        for prompt in prompts[index % num_classes * templates :][:templates]
    ]
    parts = all_gather(_encode_classes(model, mine, share, batch_size))
    return torch.cat(parts)[:num_classes]


def _encode_classes(
    model: nn.Module, prompts: list[str], num_classes: int, batch_size: int
) -> Tensor:
    templates = len(prompts) // num_classes
    tokenizer = get_tokenizer(getattr(model.text, 'context_length', 77))
    parts = []
    with _progress(len(prompts)) as advance:
        step = _CLASSES_AT_ONCE * templates
        for start in range(0, len(prompts), step):
            tokens = tokenizer(prompts[start : start + step])
            features = encode_tokens(model, tokens, batch_size, on_batch=advance)
            means = features.unflatten(0, (-1, templates)).mean(dim=1)  # [c, E]
            parts.append(F.normalize(means, dim=-1))
    return torch.cat(parts)


@contextmanager
def _progress(total: int):
    """A bar on stderr where it takes a while: a function to call with what is done."""
    if total < _SHOW_PROGRESS or not is_main_process():
        yield lambda count: None
        return
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task('Prompts', total=total)
        yield lambda count: progress.advance(task, count)


class ZeroShot(nn.Module):
    """Predicts among classes that are given by their names.

    The classifier is built at the first batch and kept until the model is trained, evaluated anew
    (`model.eval()`) or loaded; it is no part of the state dict.

    Args:
        classes: 'imagenet', 'dataset' (the class names of the data set that is tested on), a list,
            or a text file with one name per line.
        templates: 'openai' (80), 'simple' (7), one sentence with ``{}``, a list, or a text file.
        logit_scale: Factor of the cosines before the softmax; None takes the model's own.
        batch_size: Prompts per pass of the text tower.
        cache: Keep classifiers on disk, see `build_classifier`. While a model is trained none is
            written: it would never be asked for again.

    Raises:
        ConfigError: Classes or templates that cannot be read.
    """

    def __init__(
        self,
        classes: str | os.PathLike | Sequence[str] = 'imagenet',
        templates: str | os.PathLike | Sequence[Template] = 'openai',
        logit_scale: float | None = 100.0,
        batch_size: int = 256,
        cache: bool | str | os.PathLike = True,
    ) -> None:
        super().__init__()
        self.from_dataset = isinstance(classes, str) and classes == 'dataset'
        self.classes = None if self.from_dataset else load_class_names(classes)
        self.templates = load_templates(templates)
        self.logit_scale = logit_scale
        self.batch_size = batch_size
        self.cache = cache
        self._weights: Tensor | None = None
        self._trained = False
        self.register_load_state_dict_post_hook(lambda *_: self.forget())

    def forget(self) -> None:
        """Build the classifier anew at the next batch."""
        self._weights = None

    def train(self, mode: bool = True) -> nn.Module:
        """Called with the model; in between its weights may have changed."""
        self.forget()
        self._trained = self._trained or mode
        return super().train(mode)

    def class_names(self, model: nn.Module) -> list[str]:
        """Names of the classes.

        Raises:
            ConfigError: They should come from the data set, which has none or another number.
        """
        known = (getattr(model, 'dataset_meta', None) or {}).get('classes')
        if self.classes is not None:
            if known is not None:
                self.check_classes(known)
            return self.classes
        if known is None:
            raise ConfigError(
                "model.test_cfg.classes='dataset', but the data set names no classes. Set "
                'metainfo=dict(classes=...) of the data set, or give the names in test_cfg.'
            )
        return [str(name).replace('_', ' ') for name in known]

    def check_classes(self, known: Sequence[str]) -> None:
        """Compare the classes with those of a data set; a run asks before it begins.

        Raises:
            ConfigError: There are more or fewer.
        """
        if self.classes is not None and len(known) != len(self.classes):
            raise ConfigError(
                f'model.test_cfg.classes names {len(self.classes)} classes, but the data set '
                f'has {len(known)} ({", ".join(map(str, known[:3]))}, ...). Give one name per '
                "label, in the order of the labels, or classes='dataset'."
            )

    def weights(self, model: nn.Module) -> Tensor:
        """The classifier, float32 [C, E]."""
        if self._weights is None:
            self._weights = build_classifier(
                model,
                self.class_names(model),
                self.templates,
                batch_size=self.batch_size,
                cache=self.cache if not self._trained else False,
                distributed=True,
            )
        return self._weights

    def forward(
        self, model: nn.Module, inputs: Tensor, data_samples: list[DataSample] | None = None
    ) -> list[DataSample]:
        """Predictions for normalised images [B, 3, H, W].

        Returns:
            Data samples with `pred_score` [C] (softmax) and `pred_label` [1].
        """
        weights = self.weights(model)
        features = model.encode_image(inputs, normalize=True).float()  # [B, E]
        scale = model.logit_scale.exp().float() if self.logit_scale is None else self.logit_scale
        scores = (scale * features @ weights.to(features.device).T).softmax(dim=-1)  # [B, C]
        labels = scores.argmax(dim=-1, keepdim=True)
        if data_samples is None:
            data_samples = [DataSample() for _ in scores]
        for sample, score, label in zip(data_samples, scores, labels, strict=True):
            sample.set_pred_score(score).set_pred_label(label)
        return data_samples
