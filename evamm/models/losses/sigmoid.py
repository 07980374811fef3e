"""Pairwise sigmoid loss between images and texts."""

import torch.nn.functional as F
from mmengine.dist import get_rank
from torch import Tensor, nn

from evamm.registry import MODELS

from ..layers import without_autocast
from .gather import at_least_float32, gather_features


@MODELS.register_module()
class SigmoidLoss(nn.Module):
    """Every image with every text: is it a pair or not (SigLIP, paper 2303.15343)?

    Sum over all pairs of images and texts of all processes, over the number of images. A process
    has the rows of its own images, over their number: the mean over processes is the loss, and the
    average of the gradients its gradient (see :class:`ContrastiveLoss`). Float32 throughout.

    The logits need a bias: ``EVACLIP(logit_scale=10, logit_bias=-10)`` as in the paper.
    """

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor | None = None,
    ) -> Tensor:
        """Computes the loss of this process.

        Args:
            image_features: Normalised features of this process, [b, E].
            text_features: Those of the texts, in the same order, [b, E].
            logit_scale: Factor of the cosines (not its logarithm).
            logit_bias: Added to the logits.

        Returns:
            Scalar.

        Raises:
            ValueError: Without a bias.
        """
        if logit_bias is None:
            raise ValueError(
                'SigmoidLoss needs a bias of the logits: set logit_bias=-10.0 (and '
                'logit_scale=10.0) of the model.'
            )
        with without_autocast(image_features.device.type):
            images, texts = at_least_float32(image_features), at_least_float32(text_features)
            (all_texts,) = gather_features(texts, with_grad=True)
            logits = (logit_scale * images) @ all_texts.t() + logit_bias  # [b, B]
            batch = images.shape[0]
            logits.diagonal(get_rank() * batch).neg_()  # the pairs
            return F.softplus(logits).sum() / batch
