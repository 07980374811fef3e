"""Masked image modelling of EVA and EVA-02."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from evamm.engine.errors import ConfigError
from evamm.registry import MODELS

from ..heads import CLIPTargetHead
from ..layers import LayerNorm, scale_grad
from ..teachers import Teacher
from .base import MaskedPretrainer
from .masked_tokens import MaskedTokens

LOSS_ON = ('masked', 'all')


class _PatchGradientScale:
    """Forward hook of a patch embedding: scales the gradient of its tokens."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, module: nn.Module, args: tuple, out: tuple) -> tuple:
        tokens, grid = out
        return scale_grad(tokens, self.factor), grid


class _BlockHead(nn.Module):
    """Norm and head for the tokens of a block that is not the last."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm(in_channels)
        self.head = CLIPTargetHead(in_channels, out_channels)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(tokens))


@MODELS.register_module()
class EVAPretrainer(MaskedPretrainer):
    """Predict CLIP features of masked patches (papers 2211.07636 and 2303.11331).

    Mask tokens take the place of masked patches and the whole sequence runs through the trunk; one
    linear head predicts the masked ones. The loss is the mean of -cosine over all masked patches of
    the batch of a process, so the number of them may differ from image to image. Source:
    ``modeling_pretrain.py`` and ``engine_for_pretraining.py`` of EVA-01 and EVA-02.

    State dict: ``backbone.*`` and ``lm_head.*``, the names of the released files.

    Args:
        backbone: Config of :class:`evamm.EVAViT`; ``out_type``, mask token and random
            initialisation are filled in.
        head: Config of :class:`evamm.CLIPTargetHead`; ``in_channels`` and ``out_channels`` are
            filled in from backbone and teacher where they are missing.
        teacher: Config of the teacher; None when the samples bring their targets.
        patch_grad_scale: Factor of the gradient that reaches the patch embedding: 0.1 in the
            official EVA-02 runs (``--stop_grad_conv1``), 1 in EVA-01's.
        loss_on: ``'masked'`` (EVA), or ``'all'``: predict the features of visible patches too.
        data_preprocessor: Its mean and std are the student's; the teacher's own are applied in
            their place where they differ.
        init_cfg: See :class:`MaskedPretrainer`.

    Several target blocks (beyond EVA): give ``backbone.out_indices`` and ``teacher.out_indices`` of
    the same length, the last block last. Every further block has a norm and a head of its own,
    ``block_heads.*``, and the loss is the mean over blocks.
    """

    def __init__(
        self,
        backbone: Mapping,
        head: Mapping | None = None,
        teacher: Mapping | Teacher | None = None,
        patch_grad_scale: float = 1.0,
        loss_on: str = 'masked',
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(teacher, data_preprocessor, init_cfg)
        if loss_on not in LOSS_ON:
            raise ConfigError(f'model.loss_on={loss_on!r} is unknown; use one of {LOSS_ON}.')
        self.loss_on = loss_on
        self.backbone = MODELS.build(
            {
                'out_type': 'raw',
                'with_mask_token': True,
                'weight_init': 'pretrain',
                **backbone,
            }
        )
        dims = self._target_dims()
        head = {'type': 'evamm.CLIPTargetHead', 'in_channels': self.backbone.embed_dims} | dict(
            head or {}
        )
        if dims:
            head.setdefault('out_channels', dims[-1])
        if 'out_channels' not in head:
            raise ConfigError(
                'model.head.out_channels is missing: without a teacher the width of the targets '
                'must be said.'
            )
        if dims and head['out_channels'] != dims[-1]:
            raise ConfigError(
                f'model.head.out_channels={head["out_channels"]}, but the teacher gives '
                f'{dims[-1]} numbers per patch.'
            )
        self.lm_head = MODELS.build(head)
        self.block_heads = None
        if len(dims) > 1:
            self.block_heads = nn.ModuleList(
                _BlockHead(self.backbone.embed_dims, width) for width in dims[:-1]
            )
        if not 0 <= patch_grad_scale <= 1:
            raise ConfigError(
                f'model.patch_grad_scale={patch_grad_scale} must lie between 0 and 1.'
            )
        if patch_grad_scale < 1:
            self.backbone.patch_embed.register_forward_hook(_PatchGradientScale(patch_grad_scale))

    def _target_dims(self) -> tuple[int, ...]:
        """Widths of the targets of all blocks; empty without a teacher."""
        blocks = self.backbone.out_indices
        last = self.backbone.arch.depth - 1
        if self.backbone.out_type != 'raw' or blocks[-1] != last or sorted(blocks) != list(blocks):
            raise ConfigError(
                "model.backbone must have out_type='raw' and end its out_indices with the last "
                f'block; found {self.backbone.out_type!r} and {blocks}.'
            )
        if self.teacher is None:
            if len(blocks) > 1:
                raise ConfigError('several model.backbone.out_indices need a teacher.')
            return ()
        dims = self.teacher.target_dims
        dims = dims if isinstance(dims, tuple) else (dims,)
        if len(dims) != len(blocks):
            raise ConfigError(
                f'model.backbone.out_indices names {len(blocks)} blocks and the teacher has '
                f'{len(dims)} targets per patch; they must be as many.'
            )
        return dims

    def draw_weights(self) -> None:
        """Trunk and head by the official rules."""
        self.backbone.init_weights()
        self.lm_head.init_weights()
        for block_head in self.block_heads or ():
            block_head.norm.reset_parameters()
            block_head.head.init_weights()

    def _tokens(
        self, images: Tensor, masked: MaskedTokens, chosen: MaskedTokens
    ) -> tuple[Tensor, ...]:
        """Tokens [M, D] of the patches in ``chosen``, one tensor per target block."""
        outs = self.backbone(images, masked.mask)
        rows = chosen.rows_behind(int(self.backbone.cls_token is not None))
        return tuple(out.flatten(0, 1).index_select(0, rows) for out in outs)

    def _heads(self) -> list[nn.Module]:
        return [*(self.block_heads or ()), self.lm_head]

    def predict_features(self, images: Tensor, data_samples: Sequence) -> Tensor:
        """What the model predicts for the masked patches of a batch, [M, T], image by image."""
        masked = self.masks_of(data_samples, images.device)
        return self.lm_head(self._tokens(images, masked, masked)[-1])

    def loss(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence) -> dict[str, Tensor]:
        """Mean negative cosine over the masked (or all) patches, fp32."""
        images, _ = self.split_inputs(inputs)
        masked = self.masks_of(data_samples, images.device)
        chosen = masked if self.loss_on == 'masked' else masked.everywhere()
        targets = self.compute_targets(inputs, data_samples, chosen)
        tokens = self._tokens(images, masked, chosen)
        losses = []
        for head, token, target in zip(self._heads(), tokens, targets, strict=True):
            if isinstance(head, _BlockHead):
                token, head = head.norm(token), head.head
            losses.append(head.loss(token, target))
        return {'loss': losses[0] if len(losses) == 1 else torch.stack(losses).mean()}

    def predict(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence) -> list:
        """Mean cosine over the masked patches of each image, of the last block."""
        images, _ = self.split_inputs(inputs)
        masked = self.masks_of(data_samples, images.device)
        targets = self.compute_targets(inputs, data_samples, masked)
        predictions = self.lm_head(self._tokens(images, masked, masked)[-1])
        cosines = self.lm_head.cosine(predictions, targets[-1])
        return self.with_cosines(data_samples, cosines, masked.counts)
