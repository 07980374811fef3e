"""A narrow EVA-02 finds digits in scenes where they overlap: boxes and masks.

The official detector with the data set exchanged and the model made small: width 128, 4 blocks,
8-pixel patches on scenes of 96 pixels that are shown at 144; heads of 32 channels. The trunk starts
from eva02_mim_tiny_digits.py.
Expected: box AP 79.3, mask AP 67.7 on 300 scenes of digits never seen in training; 81.7 and 73.5
    with cascade_mask_rcnn_eva02_tiny_digits_seg.py. See docs/en/digits_detection.md.
Hardware: 2 CPU cores; two processes need three quarters of an hour.
Command: python tools/train.py configs/digits/cascade_mask_rcnn_eva02_tiny_digits.py
Total batch: 1 process x 4 images = 4, or 2 x 2 by tools/dist_train.sh and
    --cfg-options train_dataloader.batch_size=2; 3,900 steps are 15,600 images.
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn_eva.py',
    '../_base_/datasets/digit_scenes_instance.py',
    '../_base_/schedules/eva_det.py',
    '../_base_/default_runtime_det.py',
]

channels = 64
head_channels = 32
# A trunk with patches of 8 pixels.
strides = [2, 4, 8, 16, 32]
roi_extractor = dict(
    type='evamm.ViTDetRoIExtractor', out_channels=channels, featmap_strides=strides[:4]
)

model = dict(
    data_preprocessor=dict(
        pad_size=144,
        # The statistics that the trunk was pre-trained with.
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305],
    ),
    backbone=dict(
        arch=dict(embed_dims=128, depth=4, num_heads=2),
        img_size=144,
        patch_size=8,
        pretrain_img_size=40,
        window_size=6,
        window_blocks=[0, 2],
        init_cfg=dict(
            type='Pretrained', checkpoint='work_dirs/eva02_mim_tiny_digits/iter_1200.pth'
        ),
    ),
    neck=dict(in_channels=128, out_channels=channels),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        num_convs=1,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[6], ratios=[0.5, 1.0, 2.0], strides=strides
        ),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(output_size=7, **roi_extractor),
        bbox_head=dict(
            num_classes=10,
            in_channels=channels,
            conv_out_channels=head_channels,
            fc_out_channels=256,
        ),
        # Strokes are 2 to 8 pixels wide: pooled twice as finely as objects of COCO.
        mask_roi_extractor=dict(output_size=28, **roi_extractor),
        mask_head=dict(
            num_classes=10,
            in_channels=channels,
            conv_out_channels=head_channels,
            loss_weight=2.0,
            predictor_std=0.1,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=100, max_per_img=100),
        rcnn=[
            dict(
                assigner=dict(type='evamm.IoUMatcher', pos_iou_thr=0.5, neg_iou_thr=0.5),
                sampler=dict(
                    type='evamm.BalancedSampler',
                    num=32,
                    pos_fraction=0.25,
                    add_gt_as_proposals=True,
                ),
                mask_size=56,
            ),
            dict(assigner=dict(type='evamm.IoUMatcher', pos_iou_thr=0.6, neg_iou_thr=0.6)),
            dict(assigner=dict(type='evamm.IoUMatcher', pos_iou_thr=0.7, neg_iou_thr=0.7)),
        ],
    ),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=100)),
)

optim_wrapper = dict(
    clip_grad=dict(max_norm=1.0),
    optimizer=dict(lr=1.5e-3, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=1.0),
)
param_scheduler = dict(warmup_steps=100, milestones=[3300, 3700])
train_cfg = dict(max_iters=3900, val_interval=1300)
auto_scale_lr = dict(base_batch_size=4)

default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=1300, save_best=None, max_keep_ckpts=1),
)
