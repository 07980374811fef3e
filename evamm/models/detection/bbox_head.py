"""Box head of one cascade stage."""

import torch
from mmdet.models.roi_heads.bbox_heads import Shared4Conv1FCBBoxHead
from torch import Tensor, nn

from evamm.registry import MODELS


@MODELS.register_module()
class ViTDetBBoxHead(Shared4Conv1FCBBoxHead):
    """Four convolutions with LayerNorm and a fully connected layer; one box for all classes.

    The layers and names of mmdet's ``Shared4Conv1FCBBoxHead``, with the initialisation and the
    losses of the official detector (``detectron2/modeling/roi_heads/{box_head,fast_rcnn}.py``):
    both are divided by the number of all boxes, foreground or not.

    Args:
        num_classes: Classes K, without background.
        in_channels: Channels of the pooled maps.
        conv_out_channels: Channels of the convolutions.
        fc_out_channels: Width of the fully connected layer.
        roi_feat_size: Side of the pooled maps.
        norm_cfg: Norm of the convolutions.
        bbox_coder: Between boxes before and after; the weights differ from stage to stage.
        loss_cls: ``mmdet.CrossEntropyLoss`` or ``evamm.FederatedLoss``.
        loss_bbox: Loss of the deltas.
        init_cfg: mmengine's.
    """

    def __init__(
        self,
        num_classes: int = 80,
        in_channels: int = 256,
        conv_out_channels: int = 256,
        fc_out_channels: int = 1024,
        *,
        roi_feat_size: int = 7,
        norm_cfg: dict | None = None,
        bbox_coder: dict | None = None,
        loss_cls: dict | None = None,
        loss_bbox: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            fc_out_channels=fc_out_channels,
            num_classes=num_classes,
            in_channels=in_channels,
            conv_out_channels=conv_out_channels,
            roi_feat_size=roi_feat_size,
            norm_cfg={'type': 'evamm.LayerNorm2d', 'eps': 1e-6, **(norm_cfg or {})},
            reg_class_agnostic=True,
            bbox_coder=bbox_coder or dict(type='evamm.BoxDeltaCoder', weights=(10, 10, 5, 5)),
            loss_cls=loss_cls or dict(type='mmdet.CrossEntropyLoss'),
            loss_bbox=loss_bbox or dict(type='mmdet.L1Loss'),
            init_cfg=init_cfg,
        )

    def init_weights(self) -> None:
        """Draws the fully connected layers as the official head does."""
        super().init_weights()
        for layer in self.shared_fcs:
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)

    def probabilities(self, cls_score: Tensor) -> Tensor:
        """Probabilities of logits [N, K + 1], the background last."""
        cls_score = cls_score.float()
        if self.loss_cls.use_sigmoid:
            return cls_score.sigmoid()
        return cls_score.softmax(dim=-1)

    def losses(
        self, cls_score: Tensor, bbox_pred: Tensor, boxes: Tensor, gt_boxes: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Losses of classes and boxes.

        Args:
            cls_score: Logits, [N, K + 1].
            bbox_pred: Deltas, [N, 4].
            boxes: Boxes that were looked at, [N, 4].
            gt_boxes: Ground truth of the foreground ones, [N, 4].
            labels: Classes, K for background, [N].
        """
        cls_score, bbox_pred = cls_score.float(), bbox_pred.float()
        count = max(len(labels), 1)
        foreground = (labels < self.num_classes)[:, None]
        target = self.bbox_coder.encode(boxes, gt_boxes)
        target = torch.where(foreground, target, bbox_pred.detach())
        return dict(
            loss_cls=self.loss_cls(cls_score, labels, avg_factor=count),
            loss_bbox=self.loss_bbox(bbox_pred, target, avg_factor=count),
        )
