"""What the algorithms of masked image modelling have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor

from evamm.checkpoints import load_checkpoint
from evamm.engine.errors import ConfigError
from evamm.registry import MODELS

from ..teachers import Teacher
from .masked_tokens import MaskedTokens, masked_tokens, stack_masks, to_device


class Unregistered:
    """Holds a module that is no part of a model: copies of the model share it."""

    def __init__(self, module: Teacher | None) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict) -> 'Unregistered':
        return self


class MaskedPretrainer(BaseModel):
    """A model that predicts the features of a teacher for masked patches.

    The teacher is no sub-module: it has no place in the state dict, in the parameters, in the
    optimizer, in wrappers for distributed training or in weight averages. It moves to the device
    of the first batch.

    Args:
        teacher: Config of a :class:`evamm.models.teachers.Teacher`; None when the samples bring
            their targets (a feature cache).
        data_preprocessor: mmpretrain's ``SelfSupDataPreprocessor`` unless it has a ``type``.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` goes on from a pre-training file of
            any dialect.
    """

    def __init__(
        self,
        teacher: Mapping | Teacher | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        preprocessor = {'type': 'mmpretrain.SelfSupDataPreprocessor', **(data_preprocessor or {})}
        super().__init__(preprocessor, init_cfg)
        if isinstance(teacher, Mapping):
            teacher = MODELS.build(dict(teacher))
        self._teacher = Unregistered(teacher)

    @property
    def teacher(self) -> Teacher | None:
        """The frozen encoder."""
        return self._teacher.module

    @property
    def frozen_parts(self) -> tuple[Teacher, ...]:
        """Modules that run in every step and are no sub-modules."""
        return () if self.teacher is None else (self.teacher,)

    def draw_weights(self) -> None:
        """Draws the official random weights."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Draws weights, then loads ``init_cfg`` and the teacher.

        Raises:
            ConfigError: The teacher has no weights.
        """
        if self._is_init:
            return
        self._is_init = True
        options = dict(self.init_cfg or {})
        name = type(self).__name__
        if options and options.pop('type', None) != 'Pretrained':
            raise ConfigError(
                f"{name}: init_cfg={self.init_cfg} is not supported; use type='Pretrained'."
            )
        self.draw_weights()
        if options:
            report = load_checkpoint(self, options.pop('checkpoint'), **options)
            print_log(f'{name} from {report}', logger='current')
        if self.teacher is not None:
            self.teacher.load()

    # Images and targets

    @staticmethod
    def split_inputs(inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Images of the student and of the teacher; one tensor serves both."""
        return (inputs, inputs) if isinstance(inputs, Tensor) else (inputs[0], inputs[-1])

    def _as_teacher_sees(self, images: Tensor, two_sizes: bool) -> Tensor:
        """From the normalisation of the data preprocessor to that of the teacher."""
        preprocessor, teacher = self.data_preprocessor, self.teacher
        names = ('second_mean', 'second_std') if two_sizes else ()
        if not (names and hasattr(preprocessor, names[0])):
            names = ('mean', 'std')
        if not all(hasattr(preprocessor, name) for name in names):
            return images  # not normalised here: the caller's business
        # On the host, once: reading a buffer of a GPU waits for the GPU.
        key = (names, id(preprocessor))
        if getattr(self, '_conversion', (None,))[0] != key:
            mean, std = (
                getattr(preprocessor, name).flatten().double().cpu().numpy() for name in names
            )
            scale = std / np.asarray(teacher.std)
            shift = (mean - np.asarray(teacher.mean)) / np.asarray(teacher.std)
            same = np.allclose(scale, 1, atol=1e-5) and np.allclose(shift, 0, atol=1e-5)
            self._conversion = (key, None if same else (scale, shift))
        if self._conversion[1] is None:
            return images
        scale, shift = (
            to_device(values.astype(np.float32)[:, None, None], images.device)
            for values in self._conversion[1]
        )
        return images * scale + shift

    def teacher_features(self, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the teacher says about every patch, [B, N, T], one tensor per target block."""
        _, images = self.split_inputs(inputs)
        features = self.teacher(self._as_teacher_sees(images, not isinstance(inputs, Tensor)))
        return features if isinstance(features, tuple) else (features,)

    def compute_targets(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence, masked: MaskedTokens
    ) -> tuple[Tensor, ...]:
        """Targets [M, T] of the patches in ``masked``, one tensor per target block.

        Taken from the samples (``target``: [masked patches, T] or [patches, T]) where there is no
        teacher, otherwise computed.

        Raises:
            ConfigError: Neither is there, or the teacher has another grid of patches.
        """
        if self.teacher is None:
            return (self._targets_of_samples(data_samples, masked),)
        targets = self.teacher_features(inputs)
        patches = masked.mask.shape[1]
        if targets[0].shape[1] != patches:
            raise ConfigError(
                f'the teacher gives {targets[0].shape[1]} patch tokens, the masks have {patches}: '
                'choose teacher.img_size so that both have one grid.'
            )
        return tuple(target.flatten(0, 1).index_select(0, masked.rows) for target in targets)

    def _targets_of_samples(self, data_samples: Sequence, masked: MaskedTokens) -> Tensor:
        if any('target' not in sample for sample in data_samples):
            raise ConfigError(
                f'{type(self).__name__} has no teacher and the samples have no `target`: set '
                'model.teacher, or read a feature cache with evamm.LoadTeacherFeatures.'
            )
        chosen = []
        patches = masked.mask.shape[1]
        start = 0
        for sample, count in zip(data_samples, masked.counts, strict=True):
            target = torch.as_tensor(sample.target)
            if len(target) == patches and count != patches:
                rows = masked.host_rows[start : start + count] % patches
                target = target[to_device(rows, target.device)]
            elif len(target) != count:
                raise ConfigError(
                    f'a sample has {len(target)} targets, but {count} of its {patches} patches '
                    'are masked: evamm.LoadTeacherFeatures must come after the mask.'
                )
            chosen.append(target)
            start += count
        return to_device(torch.cat(chosen), masked.mask.device)

    def masks_of(self, data_samples: Sequence | None, device: torch.device) -> MaskedTokens:
        """The masked patches of a batch."""
        return masked_tokens(stack_masks(data_samples), device)

    # Forward

    def forward(
        self,
        inputs: Tensor | Sequence[Tensor],
        data_samples: Sequence | None = None,
        mode: str = 'tensor',
    ) -> Any:
        """Features, loss or cosines.

        Args:
            inputs: Normalised images, [B, 3, H, W], or those of the student and of the teacher.
            data_samples: Elements with ``mask`` [h, w], and ``target`` where there is no teacher.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            ``'tensor'``: features of whole images (:meth:`extract_feat`). ``'loss'``: dict with
            ``loss``. ``'predict'``: the samples with ``mim_cosine`` (mean cosine over the masked
            patches of the image) and ``num_masked``.
        """
        if mode == 'tensor':
            return self.extract_feat(self.split_inputs(inputs)[0])
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        raise ValueError(f"mode={mode!r} is unknown; use 'tensor', 'loss' or 'predict'.")

    def extract_feat(self, images: Tensor) -> tuple[Tensor, ...]:
        """Output of the trunk for images without a mask."""
        return self.backbone(images)

    def pooled_features(self, inputs: Tensor | Sequence[Tensor]) -> Tensor:
        """Mean of the patch tokens of whole images, [B, D]; what evaluation hooks look at."""
        tokens = self.extract_feat(self.split_inputs(inputs)[0])[-1]  # [B, P + N, D]
        return tokens[:, int(self.backbone.cls_token is not None) :].mean(dim=1)

    def loss(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence) -> dict[str, Tensor]:
        """Loss of a batch."""
        raise NotImplementedError

    def predict(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence) -> list:
        """Mean cosine of each image."""
        raise NotImplementedError

    @staticmethod
    def with_cosines(data_samples: Sequence, cosines: Tensor, counts: Sequence[int]) -> list:
        """Puts the mean cosine of each image into its sample, as a number (one wait for all)."""
        means = [part.mean() if len(part) else part.sum() for part in cosines.split(list(counts))]
        means = torch.stack(means).tolist()
        for sample, mean, count in zip(data_samples, means, counts, strict=True):
            sample.set_field(mean, 'mim_cosine')
            sample.set_field(count, 'num_masked')
        return list(data_samples)
