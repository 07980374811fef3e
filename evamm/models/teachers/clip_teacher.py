"""EVA-CLIP image towers as teachers."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from evamm.checkpoints import LoadReport, load_checkpoint
from evamm.registry import MODELS

from ..backbones import EVAViT
from ..layers.linear import Linear
from ..variants import EVAArch
from .base import CLIP_MEAN, CLIP_STD, Teacher


@MODELS.register_module()
class CLIPTeacher(Teacher):
    """Image tower of any EVA-CLIP: the patch tokens after the last norm and the projection.

    The official teacher of EVA-02 is EVA-01-CLIP-g/14 (``infer_image`` of
    ``EVA-02/asuka/clip_wrapper.py``): class token dropped, 1,024 numbers per patch.

    Args:
        arch: Architecture of the trunk, see :class:`evamm.EVAViT`.
        embed_dims: Width T of the joint space.
        img_size: Side of the images it sees.
        patch_size: Side of a patch; None for the released one.
        out_indices: Blocks whose tokens are targets. Those of the last block go through norm and
            projection, those of others are standardised per token.
        mean, std, init_cfg, allow_random: See :class:`Teacher`. ``init_cfg`` takes a file of a
            whole CLIP or of its image tower, of any dialect.
    """

    def __init__(
        self,
        arch: str | Mapping | EVAArch = 'eva-clip-giant',
        embed_dims: int = 1024,
        *,
        img_size: int | Sequence[int] = 224,
        patch_size: int | None = None,
        out_indices: int | Sequence[int] = -1,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        init_cfg: Mapping | None = None,
        allow_random: bool = False,
    ) -> None:
        super().__init__(
            target_dims=embed_dims,
            img_size=img_size,
            mean=mean,
            std=std,
            init_cfg=init_cfg,
            allow_random=allow_random,
        )
        self.embed_dims = embed_dims
        self._trunk = {
            'arch': arch,
            'img_size': img_size,
            'patch_size': patch_size,
            'out_type': 'raw',
            'out_indices': out_indices,
        }
        self._plan()
        trunk = self.backbone
        if len(trunk.out_indices) > 1:
            last = trunk.arch.depth - 1
            self.target_dims = tuple(
                embed_dims if index == last else trunk.embed_dims for index in trunk.out_indices
            )

    def _build(self) -> None:
        self.backbone = EVAViT(**self._trunk)
        self.head = Linear(self.backbone.embed_dims, self.embed_dims)

    def read(self, path: str | os.PathLike, **options: Any) -> LoadReport:
        """Loads the tower; every tensor of it must be in the file."""
        return load_checkpoint(self, path, **{'complete': True, **options})

    def init_random(self) -> None:
        self.backbone.init_weights()

    def encode(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Targets [B, N, T]."""
        last = self.backbone.arch.depth - 1
        targets = []
        outs = self.backbone(images)
        for index, tokens in zip(self.backbone.out_indices, outs, strict=True):
            tokens = tokens[:, 1:]  # [B, N, D]
            if index == last:
                targets.append(self.head(tokens))
            else:
                targets.append(F.layer_norm(tokens, tokens.shape[-1:]))
        return tuple(targets) if len(targets) > 1 else targets[0]
