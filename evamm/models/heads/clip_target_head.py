"""The linear head that predicts a teacher's features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evamm.registry import MODELS

from ..layers.linear import Linear

WEIGHT_INITS = ('xavier_normal', 'xavier_uniform', 'cut_normal')


@MODELS.register_module()
class CLIPTargetHead(Linear):
    """Linear layer with bias, and the loss of EVA: the negative cosine to the target.

    Source: ``lm_head`` of ``modeling_pretrain.py`` and ``compute_loss`` of
    ``engine_for_pretraining.py``, EVA-01 and EVA-02.

    Args:
        in_channels: Width D of a token.
        out_channels: Width T of a target.
        weight_init: ``'xavier_normal'`` (EVA-02), ``'xavier_uniform'`` (MAE) or ``'cut_normal'``:
            normal of 0.015 cut at one standard deviation (EVA-01). The bias starts at zero.

    Raises:
        ValueError: Unknown ``weight_init``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, weight_init: str = 'xavier_normal'
    ) -> None:
        if weight_init not in WEIGHT_INITS:
            raise ValueError(
                f'CLIPTargetHead: weight_init={weight_init!r} is unknown; use one of '
                f'{WEIGHT_INITS}.'
            )
        self.weight_init = weight_init
        super().__init__(in_channels, out_channels)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draws the official random weights."""
        if self.weight_init == 'cut_normal':
            nn.init.trunc_normal_(self.weight, std=0.015, a=-0.015, b=0.015)
        elif self.weight_init == 'xavier_uniform':
            nn.init.xavier_uniform_(self.weight)
        else:
            nn.init.xavier_normal_(self.weight)
        nn.init.zeros_(self.bias)

    @staticmethod
    def cosine(predictions: Tensor, targets: Tensor) -> Tensor:
        """Cosine of each prediction to its target, fp32.

        Args:
            predictions: [M, T].
            targets: [M, T].

        Returns:
            Tensor of shape [M].
        """
        return F.cosine_similarity(predictions.float(), targets.float(), dim=-1)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean negative cosine between the predictions for some tokens and their targets.

        Args:
            tokens: [M, D]; there may be none.
            targets: [M, T].

        Returns:
            Scalar between -1 and 1, fp32; 0 without tokens.
        """
        return -self.cosine(self(tokens), targets).sum() / max(len(tokens), 1)
