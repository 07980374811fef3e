"""Cascade of box heads with one mask head, as in the official detectors."""

from collections.abc import Sequence

import torch
from mmdet.models.roi_heads import CascadeRoIHead
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.registry import TASK_UTILS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from evamm.registry import MODELS

from ..layers import scale_grad
from .boxes import clip_boxes, image_sizes, nonempty
from .candidates import (
    Candidates,
    GroundTruth,
    gather_ground_truth,
    match_candidates,
    sample_candidates,
)
from .detections import check_test_cfg, maskness, select_detections
from .mask_head import code_masks, mask_targets, paste_masks
from .precision import head_inputs, head_precision

# Masks predicted at a time: with Soft-NMS there may be thousands in an image.
_MASKS = 512
_STAGE_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the first stage; the others: twice, three times


@MODELS.register_module()
class ViTDetCascadeRoIHead(CascadeRoIHead):
    """Three stages of box heads, each with the boxes of the one before, and one mask head.

    Layers and names of mmdet's ``CascadeRoIHead`` with the rules of the official detector
    (``detectron2/modeling/roi_heads/cascade_rcnn.py``):

    - The losses of the stages have equal weight; the gradient of the pooled features is divided
      by the number of stages instead.
    - Proposals are sampled once. Later stages match the new boxes again and train on all of them
      but empty ones; ground truth is not added again.
    - Probabilities, not logits, are averaged over the stages.
    - The mask head is trained on the foreground of the first stage and looks at the final boxes.
    - Soft-NMS in place of NMS and maskness: see :func:`select_detections` and :func:`maskness`;
      detections are not sorted again after maskness.

    Args:
        num_stages: Box heads.
        bbox_roi_extractor: Pools for the box heads; without a type, :class:`ViTDetRoIExtractor`.
        bbox_head: One config for every stage, whose ``bbox_coder`` weights are set to those of
            the stage unless given, or a list of configs.
        mask_roi_extractor: Pools for the mask head; the same.
        mask_head: None for boxes only.
        autocast: Run under the autocast that surrounds it. False (official): in float32.
        train_cfg: One for every stage with ``assigner``; the first one has ``sampler``, too, and
            ``mask_size`` (28).
        test_cfg: ``score_thr``, ``nms``, ``max_per_img``, ``soft_nms``, ``mask_thr_binary``,
            ``maskness_thr``, ``mask_format``: 'bitmap' or 'rle' (see :meth:`predict_mask`).
        init_cfg: mmengine's.
    """

    check_test_cfg = staticmethod(check_test_cfg)
    takes_mask_format = True  # in `test_cfg`

    def __init__(
        self,
        num_stages: int = 3,
        bbox_roi_extractor: dict | None = None,
        bbox_head: dict | Sequence[dict] | None = None,
        mask_roi_extractor: dict | None = None,
        mask_head: dict | None = None,
        *,
        autocast: bool = False,
        train_cfg: Sequence[ConfigDict] | None = None,
        test_cfg: ConfigDict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if test_cfg is not None:
            check_test_cfg(test_cfg)
        if isinstance(bbox_head, dict):
            coders = [
                dict(
                    type='evamm.BoxDeltaCoder',
                    weights=[weight * (stage + 1) for weight in _STAGE_WEIGHTS],
                )
                for stage in range(num_stages)
            ]
            bbox_head = [{'bbox_coder': coder, **bbox_head} for coder in coders]
        super().__init__(
            num_stages=num_stages,
            stage_loss_weights=[1.0] * num_stages,
            bbox_roi_extractor=_with_type(bbox_roi_extractor, output_size=7),
            bbox_head=bbox_head,
            mask_roi_extractor=_with_type(mask_roi_extractor, output_size=14),
            mask_head=mask_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            init_cfg=init_cfg,
        )
        self.autocast = autocast
        self.num_classes = self.bbox_head[0].num_classes

    def init_mask_head(self, mask_roi_extractor: dict, mask_head: dict) -> None:
        """Builds the one mask head."""
        self.mask_roi_extractor = MMDET_MODELS.build(mask_roi_extractor)
        self.mask_head = MMDET_MODELS.build(mask_head)

    def init_assigner_sampler(self) -> None:
        """Builds a matcher for every stage and the sampler of the first.

        Raises:
            ValueError: If ``train_cfg`` is not a list of one config for every stage, the first
                one with a sampler.
        """
        if self.train_cfg is None:
            return
        if len(self.train_cfg) != self.num_stages:
            raise ValueError(
                f'train_cfg.rcnn: {len(self.train_cfg)} configs for {self.num_stages} stages.'
            )
        with_sampler = ['sampler' in cfg for cfg in self.train_cfg]
        if not with_sampler[0] or any(with_sampler[1:]):
            raise ValueError(
                'train_cfg.rcnn: the first stage needs a sampler, later ones train on all its '
                'boxes and take none.'
            )
        self.bbox_assigner = [TASK_UTILS.build(cfg.assigner) for cfg in self.train_cfg]
        self.bbox_sampler = TASK_UTILS.build(self.train_cfg[0].sampler)

    def loss(
        self,
        x: tuple[Tensor, ...],
        rpn_results_list: Sequence[InstanceData],
        batch_data_samples: Sequence[DetDataSample],
    ) -> dict[str, Tensor]:
        """Losses of all stages and of the masks.

        Args:
            x: Levels, [B, C, h, w].
            rpn_results_list: Proposals of every image (``bboxes`` [P, 4]).
            batch_data_samples: With ``gt_instances``: ``bboxes``, ``labels`` and, if the masks are
                to be trained on an image, ``masks``.
        """
        with head_precision(x[0], self.autocast):
            x = head_inputs(x, self, self.autocast)
            instances = [sample.gt_instances for sample in batch_data_samples]
            truth = gather_ground_truth(instances)
            sizes = image_sizes([sample.metainfo for sample in batch_data_samples], truth.boxes)
            proposals = [results.bboxes for results in rpn_results_list]
            if self.bbox_sampler.add_gt_as_proposals:
                proposals = [torch.cat((own, gt.bboxes)) for own, gt in zip(proposals, instances)]
            first = candidates = sample_candidates(
                proposals, truth, self.bbox_assigner[0], self.bbox_sampler, self.num_classes
            )
            losses, deltas = {}, None
            for stage, head in enumerate(self.bbox_head):
                if stage > 0:
                    rois = self._refine(stage - 1, candidates.rois, deltas, sizes)
                    candidates = match_candidates(
                        rois, truth, self.bbox_assigner[stage], self.num_classes
                    )
                rois = candidates.rois
                scores, deltas = self._bbox_outputs(stage, x, rois, scale_gradient=True)
                parts = head.losses(
                    scores, deltas, rois[:, 1:], truth.boxes[candidates.index], candidates.labels
                )
                losses.update({f's{stage}.{name}': value for name, value in parts.items()})
                deltas = deltas.detach()
            if self.with_mask:
                losses.update(self._mask_losses(x, first, truth, instances))
        return losses

    def _refine(self, stage: int, rois: Tensor, deltas: Tensor, sizes: Tensor) -> Tensor:
        """Boxes [R, 5] after a stage, cut at the rims of the images of `sizes` [B, 2]."""
        boxes = self.bbox_head[stage].bbox_coder.decode(rois[:, 1:], deltas)
        return torch.cat((rois[:, :1], clip_boxes(boxes, sizes[rois[:, 0].long()])), dim=1)

    def _bbox_outputs(
        self, stage: int, x: tuple[Tensor, ...], rois: Tensor, scale_gradient: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Logits [R, K + 1] and deltas [R, 4] of a stage."""
        extractor = self.bbox_roi_extractor[stage]
        features = extractor(x[: extractor.num_inputs], rois)
        if scale_gradient:
            features = scale_grad(features, 1 / self.num_stages)
        return self.bbox_head[stage](features)

    def _mask_outputs(
        self, x: tuple[Tensor, ...], rois: Tensor, labels: Tensor | None = None
    ) -> Tensor:
        """Mask logits of the boxes' classes [R, S, S], or of all [R, K, S, S]."""
        extractor = self.mask_roi_extractor
        return self.mask_head(extractor(x[: extractor.num_inputs], rois), labels)

    def _mask_losses(
        self,
        x: tuple[Tensor, ...],
        candidates: Candidates,
        truth: GroundTruth,
        instances: Sequence[InstanceData],
    ) -> dict[str, Tensor]:
        size = self.train_cfg[0].get('mask_size', 28)
        (foreground,) = (candidates.labels < self.num_classes).nonzero(as_tuple=True)
        images = candidates.rois[foreground, 0]
        targets, members = [], []
        offset = 0
        for number, gt in enumerate(instances):
            if 'masks' in gt:
                some = foreground[images == number]
                members.append(some)
                boxes, index = candidates.rois[some, 1:], candidates.index[some] - offset
                targets.append(mask_targets(gt.masks, boxes, index, size))
            offset += len(gt)
        some = torch.cat(members) if members else foreground[:0]
        targets = torch.cat(targets) if targets else None
        logits = self._mask_outputs(x, candidates.rois[some], candidates.labels[some])
        return self.mask_head.losses(logits, targets)

    def _cascade(self, x: tuple[Tensor, ...], rois: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean probabilities [R, K + 1] and final boxes [R, 4], not clipped to the image."""
        probabilities, deltas = 0, None
        for stage, head in enumerate(self.bbox_head):
            if stage > 0:
                rois = self._refine(stage - 1, rois, deltas, sizes)
            scores, deltas = self._bbox_outputs(stage, x, rois)
            probabilities = probabilities + head.probabilities(scores)
        boxes = self.bbox_head[-1].bbox_coder.decode(rois[:, 1:], deltas)
        return probabilities * (1.0 / self.num_stages), boxes

    def predict_bbox(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: Sequence[dict],
        rpn_results_list: Sequence[InstanceData],
        rcnn_test_cfg: ConfigDict,
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Detections of every image: ``bboxes`` [N, 4], ``scores`` [N], ``labels`` [N].

        Args:
            x: Levels, [B, C, h, w].
            batch_img_metas: ``img_shape`` and, to rescale, ``scale_factor``, ``ori_shape``.
            rpn_results_list: Proposals of every image.
            rcnn_test_cfg: See ``test_cfg``.
            rescale: Boxes in pixels of the original image.
        """
        with head_precision(x[0], self.autocast):
            x = head_inputs(x, self, self.autocast)
            proposals = [results.bboxes for results in rpn_results_list]
            rois = bbox2roi(proposals)
            sizes = image_sizes(batch_img_metas, rois)
            probabilities, boxes = self._cascade(x, rois, sizes)
        counts = [len(boxes) for boxes in proposals]
        results = [
            select_detections(*parts, rcnn_test_cfg)
            for parts in zip(boxes.split(counts), probabilities.split(counts), sizes)
        ]
        return [
            _to_original(found, meta) if rescale else found
            for found, meta in zip(results, batch_img_metas)
        ]

    def predict_mask(
        self,
        x: tuple[Tensor, ...],
        batch_img_metas: Sequence[dict],
        results_list: Sequence[InstanceData],
        rescale: bool = False,
    ) -> list[InstanceData]:
        """Adds ``masks`` to the detections, and maskness to their scores.

        ``masks`` is bool [N, H, W]. With ``mask_format='rle'`` in ``test_cfg`` it is a list of
        COCO's run-length codes, and the bitmaps of an image are never held all at once.

        Args:
            x: Levels, [B, C, h, w].
            batch_img_metas: ``img_shape`` and, to rescale, ``scale_factor``, ``ori_shape``.
            results_list: Detections of every image, in pixels of the resized one.
            rescale: Boxes and masks in pixels of the original image.
        """
        with head_precision(x[0], self.autocast):
            x = head_inputs(x, self, self.autocast)
            rois = bbox2roi([found.bboxes for found in results_list])
            labels = torch.cat([found.labels for found in results_list])
            logits = [
                self._mask_outputs(x, *some)
                for some in zip(rois.split(_MASKS), labels.split(_MASKS))
            ]
        probabilities = torch.cat(logits).float().sigmoid()  # [N, S, S]
        results = []
        parts = probabilities.split([len(found) for found in results_list])
        for found, masks, meta in zip(results_list, parts, batch_img_metas):
            threshold = self.test_cfg.get('maskness_thr')
            if threshold is not None:
                found.scores = found.scores * maskness(masks, threshold)
            found.masks = masks
            if rescale:
                found = _to_original(found, meta)
            shape = meta['ori_shape' if rescale else 'img_shape'][:2]
            threshold = self.test_cfg.get('mask_thr_binary', 0.5)
            put = code_masks if self.test_cfg.get('mask_format') == 'rle' else paste_masks
            found.masks = put(found.masks, found.bboxes, shape, threshold)
            results.append(found)
        return results

    def forward(
        self,
        x: tuple[Tensor, ...],
        rpn_results_list: Sequence[InstanceData],
        batch_data_samples: Sequence[DetDataSample],
    ) -> tuple[Tensor, ...]:
        """Probabilities [R, K + 1], boxes [R, 4] and mask logits [R, K, S, S] of all proposals."""
        with head_precision(x[0], self.autocast):
            x = head_inputs(x, self, self.autocast)
            rois = bbox2roi([results.bboxes for results in rpn_results_list])
            sizes = image_sizes([sample.metainfo for sample in batch_data_samples], rois)
            outputs = self._cascade(x, rois, sizes)
            if self.with_mask:
                outputs += (self._mask_outputs(x, torch.cat((rois[:, :1], outputs[1]), dim=1)),)
        return outputs


def _with_type(extractor: dict | Sequence[dict] | None, output_size: int) -> dict | Sequence[dict]:
    """A pooling with what a config does not say; it may name nothing but another width."""
    if isinstance(extractor, Sequence) or 'type' in (extractor or {}):
        return extractor
    return dict(type='evamm.ViTDetRoIExtractor', output_size=output_size, **(extractor or {}))


def _to_original(found: InstanceData, meta: dict) -> InstanceData:
    """Detections in pixels of the original image, without those that are empty there."""
    width, height = meta['scale_factor'][:2]
    scale = found.bboxes.new_tensor([width, height, width, height])
    size = found.bboxes.new_tensor(meta['ori_shape'][:2])
    found.bboxes = clip_boxes(found.bboxes / scale, size)
    return found[nonempty(found.bboxes)]
