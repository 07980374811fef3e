"""MAE-style pre-training with CLIP targets: EVA-L and mmpretrain's `eva-mae-style`."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from evamm.engine.errors import ConfigError
from evamm.registry import MODELS

from ..backbones.weight_init import sincos_pos_embed
from ..heads import CLIPTargetHead
from ..layers import Block, LayerNorm
from ..layers.linear import Linear
from ..teachers import Teacher
from .base import MaskedPretrainer
from .masked_tokens import MaskedTokens, masked_tokens, stack_masks, to_device

_DECODER = {'embed_dims', 'depth', 'num_heads'}


@MODELS.register_module()
class MAEPretrainer(MaskedPretrainer):
    """The trunk sees visible patches only; a small decoder predicts CLIP features of the others.

    The loss is the mean of -cosine over the removed patches. (The published file returns it with
    the opposite sign; the published log shows that the real run did not.) Source:
    ``EVA-01/eva/modeling_mae_pretrain.py``; paper of MAE: 2111.06377.

    Position embeddings of trunk and decoder are sine-cosine tables and not trained. State dict:
    ``backbone.*`` and the official names of the decoder, ``decoder_embed.*``, ``mask_token`` and so
    on, so that the released file fits.

    Args:
        backbone: Config of :class:`evamm.EVAViT`; ``out_type`` and random initialisation are
            filled in.
        decoder: ``embed_dims``, ``depth`` and ``num_heads``.
        target_dims: Width T of a target; None for the teacher's.
        teacher: Config of the teacher; None when the samples bring their targets.
        data_preprocessor, init_cfg: See :class:`MaskedPretrainer`.
    """

    def __init__(
        self,
        backbone: Mapping,
        decoder: Mapping,
        target_dims: int | None = None,
        teacher: Mapping | Teacher | None = None,
        data_preprocessor: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(teacher, data_preprocessor, init_cfg)
        self.backbone = MODELS.build({'out_type': 'raw', 'weight_init': 'pretrain', **backbone})
        if self.backbone.out_type != 'raw' or self.backbone.cls_token is None:
            raise ConfigError("model.backbone must have a class token and out_type='raw'.")
        self.backbone.pos_embed.requires_grad_(False)
        if set(decoder) != _DECODER:
            raise ConfigError(
                f'model.decoder must have the keys {sorted(_DECODER)}, found {sorted(decoder)}.'
            )
        target_dims = target_dims or getattr(self.teacher, 'target_dims', None)
        if not isinstance(target_dims, int):
            raise ConfigError(
                'model.target_dims must be the width of one target per patch, found '
                f'{target_dims!r}.'
            )
        if self.teacher is not None and self.teacher.target_dims != target_dims:
            raise ConfigError(
                f'model.target_dims={target_dims}, but the teacher gives '
                f'{self.teacher.target_dims} numbers per patch.'
            )

        dims = decoder['embed_dims']
        height, width = self.backbone.grid_size
        self.decoder_embed = Linear(self.backbone.embed_dims, dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dims))
        # A frozen parameter and no buffer: that is what released files are compared with.
        self.decoder_pos_embed = nn.Parameter(
            torch.zeros(1, 1 + height * width, dims), requires_grad=False
        )
        self.decoder_blocks = nn.ModuleList(
            Block(dims, decoder['num_heads'], 4 * dims, ffn='mlp', qkv_bias='qkv')
            for _ in range(decoder['depth'])
        )
        self.decoder_norm = LayerNorm(dims)
        self.decoder_pred = CLIPTargetHead(dims, target_dims, weight_init='xavier_uniform')

    @torch.no_grad()
    def draw_weights(self) -> None:
        """Trunk by its rule, everything else Xavier uniform; the tables are computed."""
        trunk = self.backbone
        trunk.init_weights()
        trunk.pos_embed.copy_(sincos_pos_embed(trunk.embed_dims, *trunk.pos_grid_size))
        dims = self.mask_token.shape[-1]
        self.decoder_pos_embed.copy_(sincos_pos_embed(dims, *trunk.grid_size))
        nn.init.normal_(self.mask_token, std=0.02)
        for module in (self.decoder_embed, self.decoder_blocks, self.decoder_norm):
            for part in module.modules():
                if isinstance(part, nn.Linear):
                    nn.init.xavier_uniform_(part.weight)
                    nn.init.zeros_(part.bias)
                elif isinstance(part, nn.LayerNorm):
                    part.reset_parameters()
        self.decoder_pred.init_weights()

    def _decode(self, images: Tensor, masks: np.ndarray, masked: MaskedTokens) -> Tensor:
        """Tokens of the decoder for the removed patches, before its last norm, [M, E]."""
        batch, patches = masks.shape
        visible = patches - np.asarray(masked.counts)
        if visible.min() != visible.max() or not visible.min():
            raise ConfigError(
                'MAEPretrainer needs masks that leave the same number of patches visible, at '
                f'least one; found {visible.min()} to {visible.max()}. Use evamm.RandomMasking.'
            )
        keep = np.nonzero(~masks)[1].reshape(batch, -1)  # [B, K]
        (latent,) = self.backbone(images, keep=to_device(keep, images.device))
        known = self.decoder_embed(latent)  # [B, 1 + K, E]
        places = np.concatenate((np.zeros((batch, 1), np.int64), 1 + keep), axis=1)
        places += (1 + patches) * np.arange(batch)[:, None]
        x = self.mask_token.to(known.dtype).expand(batch, 1 + patches, -1).flatten(0, 1)
        places = to_device(places.ravel(), images.device)
        x = x.index_copy(0, places, known.flatten(0, 1)).unflatten(0, (batch, -1))
        x = x + self.decoder_pos_embed  # [B, 1 + N, E]
        for block in self.decoder_blocks:
            x = block(x)
        return x.flatten(0, 1).index_select(0, masked.rows_behind(1))

    def _predict(self, images: Tensor, masks: np.ndarray, masked: MaskedTokens) -> Tensor:
        return self.decoder_norm(self._decode(images, masks, masked))

    def predict_features(self, images: Tensor, data_samples: Sequence) -> Tensor:
        """What the model predicts for the removed patches of a batch, [M, T], image by image."""
        masks = stack_masks(data_samples)
        masked = masked_tokens(masks, images.device)
        return self.decoder_pred(self._predict(images, masks, masked))

    def loss(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence) -> dict[str, Tensor]:
        """Mean negative cosine over the removed patches, fp32."""
        images, _ = self.split_inputs(inputs)
        masks = stack_masks(data_samples)
        masked = masked_tokens(masks, images.device)
        (targets,) = self.compute_targets(inputs, data_samples, masked)
        return {'loss': self.decoder_pred.loss(self._predict(images, masks, masked), targets)}

    def predict(self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence) -> list:
        """Mean cosine over the removed patches of each image."""
        images, _ = self.split_inputs(inputs)
        masks = stack_masks(data_samples)
        masked = masked_tokens(masks, images.device)
        (targets,) = self.compute_targets(inputs, data_samples, masked)
        predictions = self.decoder_pred(self._predict(images, masks, masked))
        cosines = self.decoder_pred.cosine(predictions, targets)
        return self.with_cosines(data_samples, cosines, masked.counts)
