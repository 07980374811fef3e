"""What every frozen target encoder has in common."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from evamm.engine.errors import ConfigError

# Statistics of OpenAI CLIP for pixels from 0 to 255, RGB; all CLIP towers use them.
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)


class Teacher(nn.Module):
    """A frozen encoder whose patch tokens are the targets of masked image modelling.

    It is never trained and never in training mode. The constructor takes no memory for weights
    where the subclass can do without; :meth:`load`, which ``init_weights`` of the pre-training
    model or the first forward pass calls, reads them. A teacher without weights is refused.

    Args:
        target_dims: Width T of the targets; a tuple if there are several per patch.
        img_size: Side of the images it sees, or (height, width); others are resized (bicubic).
            None takes any size.
        mean: Channel means of its normalisation, RGB, for pixels from 0 to 255.
        std: Standard deviations of its normalisation.
        init_cfg: ``dict(type='Pretrained', checkpoint=PATH_OR_URL, ...)``; further keys are for
            :meth:`read`.
        allow_random: Run with random weights if there is no ``init_cfg`` (tests, measurements).
    """

    def __init__(
        self,
        *,
        target_dims: int | tuple[int, ...],
        img_size: int | Sequence[int] | None,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        init_cfg: Mapping | None = None,
        allow_random: bool = False,
    ) -> None:
        super().__init__()
        self.target_dims = target_dims
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.init_cfg = dict(init_cfg or {})
        self.allow_random = allow_random
        self.is_loaded = False
        name = type(self).__name__
        kind = self.init_cfg.get('type', 'Pretrained')
        if kind != 'Pretrained' or (self.init_cfg and 'checkpoint' not in self.init_cfg):
            raise ConfigError(
                f'{name}: init_cfg={dict(init_cfg)} is not supported; use '
                "dict(type='Pretrained', checkpoint=PATH_OR_URL)."
            )

    @property
    def checkpoint(self) -> str | None:
        """Path or address of the weights."""
        return self.init_cfg.get('checkpoint')

    def _build(self) -> None:
        """Makes the sub-modules; called on the meta device first and where they live later."""
        raise NotImplementedError

    def _plan(self) -> None:
        """Makes the sub-modules without memory."""
        with torch.device('meta'):
            self._build()
        self._freeze()

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> 'Teacher':
        """Stays in evaluation mode."""
        return super().train(False)

    def load(self) -> None:
        """Reads the weights, once.

        Raises:
            ConfigError: There is no checkpoint.
            CheckpointError: It cannot be read or does not fit.
        """
        if self.is_loaded:
            return
        options = dict(self.init_cfg)
        options.pop('type', None)
        name = type(self).__name__
        if not options and not self.allow_random:
            raise ConfigError(
                f'teacher={name} has no weights, and targets of random weights teach nothing: set '
                "teacher.init_cfg=dict(type='Pretrained', checkpoint=PATH_OR_URL), or "
                'teacher.allow_random=True for a test.'
            )
        if any(param.is_meta for param in self.parameters()):
            self._build()
        if options:
            path = options.pop('checkpoint')
            report = self.read(path, **options)
            print_log(f'{name} from {report}', logger='current')
        else:
            self.init_random()
        self._freeze()
        self.is_loaded = True

    def read(self, path: str | os.PathLike, **options: Any) -> object:
        """Reads weights into the model; returns what to log."""
        raise NotImplementedError

    def init_random(self) -> None:
        """Random weights where the constructor has not drawn them."""

    def encode(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Targets [B, N, T] of images in the teacher's own size and normalisation."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Targets of a batch, under the autocast that is in force.

        Args:
            images: [B, 3, H, W], normalised with ``mean`` and ``std``.

        Returns:
            One target per patch, [B, N, T], row-major, without class token; a tuple of them if
            ``target_dims`` is one.
        """
        self.load()
        device = next(self.parameters()).device
        if device != images.device:
            self.to(images.device)
        if self.img_size is not None and tuple(images.shape[-2:]) != tuple(self.img_size):
            images = F.interpolate(
                images, size=tuple(self.img_size), mode='bicubic', antialias=True
            )
        return self.encode(images)
