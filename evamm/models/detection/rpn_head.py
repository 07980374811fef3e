"""Region proposal head of the official detectors."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import RPNHead
from mmdet.structures.bbox import scale_boxes
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from evamm.registry import MODELS

from .boxes import clip_boxes, image_sizes, nonempty
from .nms import class_wise_nms
from .precision import head_inputs, head_precision


@MODELS.register_module()
class ViTDetRPNHead(RPNHead):
    """Proposals from every level of a pyramid: objectness and box of three anchors per place.

    The layers and names of mmdet's ``RPNHead`` with the rules of the official detector
    (``detectron2/modeling/proposal_generator``), which differ in training:

    - Every anchor takes part, those in the padding too.
    - Matching and sampling: :class:`IoUMatcher`, :class:`BalancedSampler`.
    - Both losses are sums over samples, over the number to be sampled from all images, also if
      there were not as many.

    And for proposals: the best ``nms_pre`` of every level by logit, NMS within levels, of the rest
    the best ``max_per_img`` of all levels; empty boxes go first.

    Args:
        in_channels: Channels of the levels.
        feat_channels: Channels within the head.
        num_convs: 3x3 convolutions before the predictions.
        autocast: Run under the autocast that surrounds it. False (official): in float32.
        num_classes: mmdet sets it to 1.
        anchor_generator: mmdet's.
        bbox_coder: Between anchors and boxes.
        train_cfg: ``assigner`` and ``sampler``.
        test_cfg: ``nms_pre``, ``max_per_img``, ``nms.iou_threshold``, ``min_bbox_size``.
        init_cfg: mmengine's.
    """

    def __init__(
        self,
        in_channels: int = 256,
        feat_channels: int = 256,
        num_convs: int = 2,
        *,
        autocast: bool = False,
        num_classes: int = 1,
        anchor_generator: dict | None = None,
        bbox_coder: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            feat_channels=feat_channels,
            num_convs=num_convs,
            num_classes=num_classes,
            anchor_generator=anchor_generator
            or dict(
                type='mmdet.AnchorGenerator',
                scales=[8],
                ratios=[0.5, 1.0, 2.0],
                strides=[4, 8, 16, 32, 64],
            ),
            bbox_coder=bbox_coder or dict(type='evamm.BoxDeltaCoder'),
            loss_cls=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
            loss_bbox=dict(type='mmdet.L1Loss'),
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            init_cfg=init_cfg or dict(type='Normal', layer='Conv2d', std=0.01),
        )
        self.autocast = autocast
        del self.loss_cls, self.loss_bbox  # mmdet's; the losses are in `loss_by_feat`

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Predicts from levels [B, C, h, w] objectness [B, A, h, w] and deltas [B, 4A, h, w]."""
        with head_precision(x[0], self.autocast):
            return super().forward(head_inputs(x, self, self.autocast))

    def _flatten(
        self, cls_scores: list[Tensor], bbox_preds: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Anchors [N, 4], logits [B, N] and deltas [B, N, 4] of every level, in float32."""
        sizes = [scores.shape[-2:] for scores in cls_scores]
        anchors = self.prior_generator.grid_priors(sizes, device=cls_scores[0].device)
        logits = [scores.permute(0, 2, 3, 1).flatten(1).float() for scores in cls_scores]
        deltas = [
            preds.permute(0, 2, 3, 1).reshape(len(preds), -1, 4).float() for preds in bbox_preds
        ]
        return anchors, logits, deltas

    @torch.no_grad()
    def _targets(
        self, anchors: Tensor, gt_instances: Sequence[InstanceData]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sampled anchors of every image: index, positive, used [B, S], their boxes [B, S, 4]."""
        matches = [self.assigner.match(anchors, gt.bboxes) for gt in gt_instances]
        sample = self.sampler.sample(
            torch.stack([match.positive for match in matches]),
            torch.stack([match.negative for match in matches]),
        )
        boxes = []
        for match, gt, index in zip(matches, gt_instances, sample.index):
            gt_boxes = torch.cat((gt.bboxes, anchors.new_zeros(1, 4)))  # there may be none
            boxes.append(gt_boxes[match.index[index]])
        return *sample, torch.stack(boxes)

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict],
        batch_gt_instances_ignore: Sequence[InstanceData] | None = None,
    ) -> dict[str, Tensor]:
        """Losses of objectness and boxes.

        Args:
            cls_scores: Objectness logits of every level, [B, A, h, w].
            bbox_preds: Deltas of every level, [B, 4A, h, w].
            batch_gt_instances: Ground truth with ``bboxes``.
            batch_img_metas: Not used.
            batch_gt_instances_ignore: Not used: there are no regions to ignore.
        """
        anchors, logits, deltas = self._flatten(cls_scores, bbox_preds)
        anchors, logits, deltas = torch.cat(anchors), torch.cat(logits, 1), torch.cat(deltas, 1)
        index, positive, used, gt_boxes = self._targets(anchors, batch_gt_instances)
        logits = logits.gather(1, index)  # [B, S]
        deltas = deltas.gather(1, index[..., None].expand(-1, -1, 4))
        target = self.bbox_coder.encode(anchors[index].flatten(0, 1), gt_boxes.flatten(0, 1))
        target = torch.where(positive[..., None], target.view_as(deltas), deltas.detach())
        objectness = F.binary_cross_entropy_with_logits(
            logits, positive.to(logits.dtype), weight=used.to(logits.dtype), reduction='sum'
        )
        normaliser = self.sampler.num * len(logits)
        return dict(
            loss_rpn_cls=objectness / normaliser,
            loss_rpn_bbox=F.l1_loss(deltas, target, reduction='sum') / normaliser,
        )

    @torch.no_grad()
    def predict_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        score_factors: None = None,
        batch_img_metas: Sequence[dict] | None = None,
        cfg: ConfigDict | None = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> list[InstanceData]:
        """Proposals of every image, by falling score.

        Args:
            cls_scores: Objectness logits of every level, [B, A, h, w].
            bbox_preds: Deltas of every level, [B, 4A, h, w].
            score_factors: Not used.
            batch_img_metas: ``img_shape`` of every image.
            cfg: Numbers and thresholds in place of ``test_cfg``.
            rescale: Boxes in pixels of the original image.
            with_nms: mmdet's; there are no proposals without NMS.

        Returns:
            For every image ``bboxes`` [P, 4], ``scores`` [P] (probabilities), ``labels`` [P] (0).

        Raises:
            ValueError: If ``with_nms`` is False.
        """
        if not with_nms:
            raise ValueError('ViTDetRPNHead: with_nms=False is not supported; leave it True.')
        cfg = self.test_cfg if cfg is None else cfg
        candidates, scores, levels = [], [], []
        for level, (anchors, logits, deltas) in enumerate(
            zip(*self._flatten(cls_scores, bbox_preds))
        ):
            score, index = logits.topk(min(cfg.nms_pre, logits.shape[1]), dim=1)  # [B, k]
            deltas = deltas.gather(1, index[..., None].expand(-1, -1, 4))
            candidates.append(self.bbox_coder.decode(anchors[index], deltas))
            scores.append(score)
            levels.append(torch.full_like(index[0], level))
        candidates, scores = torch.cat(candidates, dim=1), torch.cat(scores, dim=1)
        levels = torch.cat(levels)
        valid = candidates.isfinite().all(dim=-1) & scores.isfinite()
        candidates = clip_boxes(candidates, image_sizes(batch_img_metas, candidates)[:, None])
        valid &= nonempty(candidates, cfg.get('min_bbox_size', 0))
        results = []
        for boxes, score, keep, meta in zip(candidates, scores, valid, batch_img_metas):
            boxes, score = boxes[keep], score[keep]
            kept = class_wise_nms(boxes, score, levels[keep], cfg.nms.iou_threshold)
            kept = kept[: cfg.max_per_img]
            boxes, score = boxes[kept], score[kept].sigmoid()
            if rescale:
                boxes = scale_boxes(boxes, [1 / factor for factor in meta['scale_factor']])
            results.append(InstanceData(bboxes=boxes, scores=score, labels=torch.zeros_like(kept)))
        return results
