"""A tiny detector of every part, and data for it."""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import PolygonMasks
from mmengine import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

DIMS = 16


def tiny_cfg(num_classes: int = 3, size: int = 64) -> ConfigDict:
    """Cascade Mask R-CNN with the whole structure of the recipes and few channels."""
    roi = dict(type='evamm.ViTDetRoIExtractor', out_channels=DIMS)
    head = dict(num_classes=num_classes, in_channels=DIMS, conv_out_channels=DIMS)
    thresholds = (0.5, 0.6, 0.7)
    rcnn = [
        dict(assigner=dict(type='evamm.IoUMatcher', pos_iou_thr=thr, neg_iou_thr=thr))
        for thr in thresholds
    ]
    rcnn[0]['sampler'] = dict(
        type='evamm.BalancedSampler', num=512, pos_fraction=0.25, add_gt_as_proposals=True
    )
    proposals = dict(nms_pre=1000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7))
    return ConfigDict(
        type='mmdet.CascadeRCNN',
        data_preprocessor=dict(type='evamm.SquarePadDetDataPreprocessor', pad_size=size),
        backbone=dict(
            type='evamm.EVAViT',
            arch=dict(embed_dims=32, depth=2, num_heads=2),
            img_size=size,
            patch_size=16,
            out_type='featmap',
            final_norm=False,
            with_cls_token=False,
            window_size=2,
            window_blocks=[0],
        ),
        neck=dict(type='evamm.SimpleFeaturePyramid', in_channels=32, out_channels=DIMS),
        rpn_head=dict(type='evamm.ViTDetRPNHead', in_channels=DIMS, feat_channels=DIMS),
        roi_head=dict(
            type='evamm.ViTDetCascadeRoIHead',
            bbox_roi_extractor=dict(roi, output_size=7),
            bbox_head=dict(head, type='evamm.ViTDetBBoxHead', fc_out_channels=32),
            mask_roi_extractor=dict(roi, output_size=14),
            mask_head=dict(head, type='evamm.ViTDetMaskHead'),
        ),
        train_cfg=dict(
            rpn=dict(
                assigner=dict(
                    type='evamm.IoUMatcher',
                    pos_iou_thr=0.7,
                    neg_iou_thr=0.3,
                    match_low_quality=True,
                ),
                sampler=dict(type='evamm.BalancedSampler', num=256, pos_fraction=0.5),
            ),
            rpn_proposal=dict(proposals, nms_pre=2000),
            rcnn=rcnn,
        ),
        test_cfg=dict(
            rpn=proposals,
            rcnn=dict(
                score_thr=0.05,
                nms=dict(type='nms', iou_threshold=0.5),
                max_per_img=100,
                mask_thr_binary=0.5,
            ),
        ),
    )


def build(cfg: ConfigDict) -> nn.Module:
    """The initialised model of a config."""
    from mmdet.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg)
    model.init_weights()
    return model


def sample(boxes: list, labels: list, shape: tuple = (48, 64), masks: bool = True) -> DetDataSample:
    """Ground truth of one image; every mask is the polygon with corners on its box."""
    instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        labels=torch.tensor(labels, dtype=torch.long),
    )
    if masks:
        polygons = [
            [np.array([(x1 + x2) / 2, y1, x2, (y1 + y2) / 2, (x1 + x2) / 2, y2, x1, y2])]
            for x1, y1, x2, y2 in boxes
        ]
        instances.masks = PolygonMasks(polygons, *shape)
    found = DetDataSample(gt_instances=instances)
    found.set_metainfo(dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)))
    return found


def batch(*samples: DetDataSample) -> dict[str, list]:
    """What a data loader gives for these samples."""
    images: list[Tensor] = []
    for found in samples:
        images.append(torch.randint(0, 256, (3, *found.img_shape), dtype=torch.uint8))
    return dict(inputs=images, data_samples=list(samples))
