"""The head that measures frozen features."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from evamm.registry import MODELS


@MODELS.register_module()
class LinearProbeHead(BaseModule):
    """BatchNorm without weights, then a linear layer: linear probing as in EVA-01 and MAE.

    The normalisation makes the learning rate independent of the scale of the features. Statistics
    are those of the images of one process, as in the official run (400). Source:
    ``run_class_finetuning.py --linear_probe`` of EVA-01.

    Args:
        in_channels: Width D of the features.
        num_classes: Number of classes C.
        loss: Config of the loss.
        init_cfg: mmengine's; by default a normal distribution of deviation 0.01, biases 0.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        loss: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        init_cfg = init_cfg or {'type': 'TruncNormal', 'layer': 'Linear', 'std': 0.01}
        super().__init__(init_cfg)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.bn = nn.BatchNorm1d(in_channels, eps=1e-6, affine=False)
        self.fc = nn.Linear(in_channels, num_classes)
        self.loss_module = MODELS.build(loss or {'type': 'mmpretrain.CrossEntropyLoss'})

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """Normalised features of the last output of the backbone, [B, D]."""
        return self.bn(feats[-1])

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Logits, [B, C]."""
        return self.fc(self.pre_logits(feats))

    def loss(
        self, feats: Sequence[Tensor], data_samples: Sequence, **kwargs: object
    ) -> dict[str, Tensor]:
        """Loss of labelled samples; ``kwargs`` go to the loss module."""
        labels = torch.cat([sample.gt_label for sample in data_samples])  # [B]
        return {'loss': self.loss_module(self(feats), labels, **kwargs)}

    def predict(self, feats: Sequence[Tensor], data_samples: Sequence | None = None) -> list:
        """Data samples with ``pred_score`` [C] and ``pred_label``."""
        from mmpretrain.structures import DataSample

        scores = self(feats).softmax(dim=1)
        labels = scores.argmax(dim=1, keepdim=True)
        samples = [DataSample() for _ in scores] if data_samples is None else data_samples
        return [
            sample.set_pred_score(score).set_pred_label(label)
            for sample, score, label in zip(samples, scores, labels, strict=True)
        ]
