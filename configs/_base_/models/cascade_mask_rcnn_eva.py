"""ViTDet: Cascade Mask R-CNN on a plain EVA trunk, with the heads of COCO.

A final config, or a file of `eva_det` or `eva02_det`, adds what belongs together: the trunk,
data_preprocessor.pad_size, backbone.img_size and the windows.
"""

model = dict(
    type='CascadeRCNN',
    data_preprocessor=dict(
        type='evamm.SquarePadDetDataPreprocessor',
        # ImageNet's statistics, pixels from 0 to 255, red first.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        non_blocking=True,
    ),
    backbone=dict(
        type='evamm.EVAViT',
        patch_size=16,
        # The position embedding stays as the file of pre-training has it; every step resizes it.
        pretrain_img_size=224,
        with_cls_token=False,
        out_type='featmap',
        final_norm=False,
    ),
    neck=dict(type='evamm.SimpleFeaturePyramid', out_channels=256),
    rpn_head=dict(type='evamm.ViTDetRPNHead', in_channels=256, num_convs=2),
    roi_head=dict(
        type='evamm.ViTDetCascadeRoIHead',
        num_stages=3,
        bbox_head=dict(
            type='evamm.ViTDetBBoxHead',
            num_classes=80,
            loss_cls=dict(type='CrossEntropyLoss'),
            loss_bbox=dict(type='L1Loss'),
        ),
        mask_head=dict(type='evamm.ViTDetMaskHead', num_classes=80),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type='evamm.IoUMatcher', pos_iou_thr=0.7, neg_iou_thr=0.3, match_low_quality=True
            ),
            sampler=dict(type='evamm.BalancedSampler', num=256, pos_fraction=0.5),
        ),
        rpn_proposal=dict(
            nms_pre=2000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0
        ),
        rcnn=[
            dict(
                assigner=dict(type='evamm.IoUMatcher', pos_iou_thr=0.5, neg_iou_thr=0.5),
                sampler=dict(
                    type='evamm.BalancedSampler',
                    num=512,
                    pos_fraction=0.25,
                    add_gt_as_proposals=True,
                ),
                mask_size=28,
            ),
            dict(assigner=dict(type='evamm.IoUMatcher', pos_iou_thr=0.6, neg_iou_thr=0.6)),
            dict(assigner=dict(type='evamm.IoUMatcher', pos_iou_thr=0.7, neg_iou_thr=0.7)),
        ],
    ),
    test_cfg=dict(
        rpn=dict(
            nms_pre=1000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0
        ),
        rcnn=dict(
            score_thr=0.05,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=100,
            mask_thr_binary=0.5,
        ),
    ),
)
