"""Any registered backbone as a teacher."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from evamm.checkpoints import CheckpointError, load_checkpoint, read_checkpoint
from evamm.engine.errors import ConfigError
from evamm.registry import MODELS

from ..backbones import EVAViT
from .base import CLIP_MEAN, CLIP_STD, Teacher

_PREFIXES = ('backbone.', 'module.backbone.', 'module.', 'encoder.', 'student.backbone.', '')


@MODELS.register_module()
class BackboneTeacher(Teacher):
    """Patch features of a backbone of any scope (mmpretrain's, timm's through mmpretrain, ours).

    The backbone returns a feature map [B, C, h, w] or tokens [B, P + N, C], alone or as the last
    entry of a tuple.

    Args:
        backbone: Config of the backbone.
        target_dims: Width T of its features; None for the backbone's ``embed_dims``.
        prefix_tokens: How many tokens P come before those of the patches; for tokens only.
        standardize: Subtract the mean and divide by the standard deviation of each token. Features
            that no last norm has seen have a few channels that are much larger than the others.
        img_size, mean, std, allow_random: See :class:`Teacher`.
        init_cfg: Weights of the backbone, or of a model that has it as ``backbone``; ``prefix``
            says what stands before its names if it is something else.
    """

    def __init__(
        self,
        backbone: Mapping,
        target_dims: int | None = None,
        *,
        prefix_tokens: int = 0,
        standardize: bool = False,
        img_size: int | Sequence[int] | None = None,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        init_cfg: Mapping | None = None,
        allow_random: bool = False,
    ) -> None:
        built = MODELS.build(dict(backbone))
        target_dims = target_dims or getattr(built, 'embed_dims', None)
        if target_dims is None:
            raise ConfigError(
                f'BackboneTeacher: {type(built).__name__} does not say how wide its features are; '
                'set teacher.target_dims.'
            )
        super().__init__(
            target_dims=target_dims,
            img_size=img_size,
            mean=mean,
            std=std,
            init_cfg=init_cfg,
            allow_random=allow_random,
        )
        self.backbone = built
        self.prefix_tokens = prefix_tokens
        self.standardize = standardize
        self._freeze()

    def read(self, path: str | os.PathLike, prefix: str | None = None, **options: Any) -> object:
        """Loads the backbone.

        Args:
            path: File or address.
            prefix: What stands before the names of the backbone; None finds out.
            options: Arguments of :func:`evamm.checkpoints.load_checkpoint` for an EVA trunk, of
                :func:`evamm.checkpoints.read_checkpoint` for others.

        Raises:
            CheckpointError: A tensor is missing or has another shape.
        """
        if isinstance(self.backbone, EVAViT):
            return load_checkpoint(self.backbone, path, **options)
        found = read_checkpoint(path, **options).state_dict
        own = self.backbone.state_dict()
        prefixes = _PREFIXES if prefix is None else (prefix,)
        prefix = max(prefixes, key=lambda text: sum(text + name in found for name in own))
        wrong = [
            name
            for name, value in own.items()
            if prefix + name not in found or found[prefix + name].shape != value.shape
        ]
        if wrong:
            raise CheckpointError(
                f'{path}: {len(wrong)} of {len(own)} tensors of {type(self.backbone).__name__} are '
                f'missing or have another shape, {prefix}{wrong[0]} among them; choose the '
                'matching backbone, or set teacher.init_cfg.prefix.'
            )
        self.backbone.load_state_dict({name: found[prefix + name] for name in own})
        return f'{path}: {len(own)} tensors'

    def init_random(self) -> None:
        if hasattr(self.backbone, 'init_weights'):
            self.backbone.init_weights()

    def encode(self, images: Tensor) -> Tensor:
        """Targets [B, N, T]."""
        out = self.backbone(images)
        out = out[-1] if isinstance(out, (tuple, list)) else out
        if out.ndim == 4:
            tokens = out.flatten(2).transpose(1, 2)  # [B, N, C]
        elif out.ndim == 3:
            tokens = out[:, self.prefix_tokens :]
        else:
            raise ConfigError(
                f'BackboneTeacher: {type(self.backbone).__name__} returned a tensor of shape '
                f'{tuple(out.shape)}; patch features are needed, so set its out_type to a feature '
                "map ('featmap') or to tokens ('raw')."
            )
        return F.layer_norm(tokens, tokens.shape[-1:]) if self.standardize else tokens
