"""Symmetric cross-entropy between images and texts."""

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank, get_world_size
from torch import Tensor, nn

from evamm.registry import MODELS

from ..layers import scale_grad, without_autocast
from .gather import at_least_float32, gather_features


@MODELS.register_module()
class ContrastiveLoss(nn.Module):
    """InfoNCE over the batch of all processes (CLIP, paper 2103.00020).

    With B pairs in all processes together, the loss of one process with the whole batch is the
    mean of the 2 B cross-entropies: of every image among all texts and of every text among all
    images. Distributed training averages gradients over the W processes. What comes out is that
    process's gradient, in three of the four combinations:

    - ``local_loss=True, gather_with_grad=True`` (official): a process has the mean over its own
      rows. The mean of these losses over processes is the loss. A gradient that arrives at a
      feature is the sum over the losses of all processes, W times that of their mean, and the
      average over processes takes the W out.
    - ``local_loss=False, gather_with_grad=True``: every process has the whole loss; gradients sum
      up to W times the whole, too.
    - ``local_loss=False, gather_with_grad=False``: every process has the whole loss and the whole
      gradient of its own features, which is multiplied by W here, because the average over
      processes divides each process's share by W.
    - ``local_loss=True, gather_with_grad=False``: the gradient of other processes' rows with
      respect to the own features is missing, and that of the own rows with respect to the own
      features as candidates: an approximation, the same as OpenCLIP's.

    Logits and loss are float32 whatever the precision of the features. All processes must have the
    same number of pairs.

    Args:
        local_loss: Logits of the own rows only, [b, B] instead of [B, B].
        gather_with_grad: Send gradients back through the gathering.
        label_smoothing: Weight of the uniform distribution in the labels.
    """

    def __init__(
        self,
        local_loss: bool = True,
        gather_with_grad: bool = True,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.local_loss = local_loss
        self.gather_with_grad = gather_with_grad
        self.label_smoothing = label_smoothing

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
            logit_bias: Added to the logits; it has no influence on this loss.

        Returns:
            Scalar.
        """
        with without_autocast(image_features.device.type):
            images, texts = at_least_float32(image_features), at_least_float32(text_features)
            return self._loss(images, texts, logit_scale)

    def _loss(self, images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
        batch, rank = images.shape[0], get_rank()
        all_images, all_texts = self._gather(images, texts)
        if self.local_loss and get_world_size() > 1:
            labels = torch.arange(batch, device=images.device) + rank * batch
            per_image = (scale * images) @ all_texts.t()  # [b, B]
            per_text = (scale * texts) @ all_images.t()  # [b, B]
        else:
            labels = torch.arange(all_images.shape[0], device=images.device)
            per_image = (scale * all_images) @ all_texts.t()  # [B, B]
            per_text = per_image.t()
        options = dict(label_smoothing=self.label_smoothing)
        of_images = F.cross_entropy(per_image, labels, **options)
        return (of_images + F.cross_entropy(per_text, labels, **options)) / 2

    def _gather(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        gathered = gather_features(images, texts, with_grad=self.gather_with_grad)
        if self.gather_with_grad or self.local_loss or get_world_size() == 1:
            return gathered
        batch, rank, world = images.shape[0], get_rank(), get_world_size()
        with_own = []
        for own, whole in zip((images, texts), gathered, strict=True):
            before, after = whole[: rank * batch], whole[(rank + 1) * batch :]
            with_own.append(torch.cat((before, scale_grad(own, world), after)))
        return tuple(with_own)
