"""A stock Mask R-CNN of mmdet on a tiny EVA trunk, as a user would write it, and scenes for it."""

import json
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image

import evamm

ROOT = Path(__file__).resolve().parents[2]

# No `custom_imports`, no base of evamm: the trunk comes by its type alone.
MASK_RCNN = """
default_scope = 'mmdet'
box = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2])
pool = dict(type='SingleRoIExtractor', out_channels=16, featmap_strides=[16, 32],
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0))
assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5)
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_mask=True, pad_size_divisor=32),
    backbone=dict(
        type='evamm.EVAViT', arch=dict(embed_dims=32, depth=2, num_heads=2), img_size=64,
        patch_size=16, out_type='featmap', final_norm=False, with_cls_token=False),
    neck=dict(type='FPN', in_channels=[32], out_channels=16, num_outs=2),
    rpn_head=dict(
        type='RPNHead', in_channels=16, feat_channels=16,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[2], ratios=[1.0], strides=[16, 32]),
        bbox_coder=dict(box, target_stds=[1.0] * 4),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss')),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=pool,
        bbox_head=dict(
            type='Shared2FCBBoxHead', in_channels=16, fc_out_channels=32, roi_feat_size=7,
            num_classes=2, bbox_coder=box, loss_cls=dict(type='CrossEntropyLoss'),
            loss_bbox=dict(type='L1Loss')),
        mask_roi_extractor=dict(pool, roi_layer=dict(pool['roi_layer'], output_size=14)),
        mask_head=dict(
            type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=16, num_classes=2,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True))),
    train_cfg=dict(
        rpn=dict(assigner=dict(assigner, pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3),
                 sampler=dict(type='RandomSampler', num=32, pos_fraction=0.5,
                              neg_pos_ub=-1, add_gt_as_proposals=False),
                 allowed_border=-1, pos_weight=-1, debug=False),
        rpn_proposal=dict(nms_pre=50, max_per_img=30, nms=dict(type='nms', iou_threshold=0.7),
                          min_bbox_size=0),
        rcnn=dict(assigner=assigner,
                  sampler=dict(type='RandomSampler', num=16, pos_fraction=0.25,
                               neg_pos_ub=-1, add_gt_as_proposals=True),
                  mask_size=28, pos_weight=-1, debug=False)),
    test_cfg=dict(
        rpn=dict(nms_pre=50, max_per_img=30, nms=dict(type='nms', iou_threshold=0.7),
                 min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=8,
                  mask_thr_binary=0.5)))

loading = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)
resize = dict(type='Resize', scale=(64, 64), keep_ratio=True)
train_pipeline = [dict(type='LoadImageFromFile'), loading, resize, dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), resize, loading,
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
scenes = dict(type='CocoDataset', data_root='scenes', ann_file='annotations.json',
              data_prefix=dict(img='images'), metainfo=dict(classes=('square', 'bar')))
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(scenes, pipeline=train_pipeline),
                        sampler=dict(type='DefaultSampler', shuffle=True))
test_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler',
                       shuffle=False), dataset=dict(scenes, test_mode=True, pipeline=test_pipeline))
test_evaluator = dict(type='CocoMetric', ann_file='scenes/annotations.json',
                      metric=['bbox', 'segm'])
val_dataloader, val_evaluator = test_dataloader, test_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
work_dir = 'run'
"""
CATEGORIES = {'bar': 7, 'square': 3}  # numbers that are neither in order nor without gaps


def make_scenes(root: Path, count: int = 4, side: int = 64) -> Path:
    """Bright squares and bars on dark ground, in COCO format; gives the annotation file."""
    rng = np.random.default_rng(0)
    (root / 'images').mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        pixels = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
        name = f'scene_{number}.png'
        images.append(dict(id=100 + 7 * number, file_name=name, height=side, width=side))
        for label, size in zip(CATEGORIES.values(), ((24, 8), (20, 20)), strict=True):
            left, top = (int(rng.integers(0, side - length)) for length in size)
            pixels[top : top + size[1], left : left + size[0]] = 220
            right, bottom = left + size[0], top + size[1]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=images[-1]['id'],
                    category_id=label,
                    bbox=[left, top, *size],
                    area=size[0] * size[1],
                    iscrowd=0,
                    segmentation=[[left, top, right, top, right, bottom, left, bottom]],
                )
            )
        Image.fromarray(pixels).save(root / 'images' / name)
    content = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=number, name=name) for name, number in CATEGORIES.items()],
    )
    (root / 'annotations.json').write_text(json.dumps(content))
    return root / 'annotations.json'


def small_recipe(path: str, classes: list[str] | None, num_classes: int = 3) -> evamm.DetInferencer:
    """A recipe of evamm below configs/ with everything small, at another input size.

    Its weights are large enough that boxes differ.
    """
    config = Config.fromfile(ROOT / 'configs' / path)
    config.model.backbone.pop('arch')
    config.merge_from_dict(
        {
            'model.backbone': dict(
                arch=dict(embed_dims=32, depth=2, num_heads=2), window_size=2, window_blocks=[0]
            ),
            'model.neck': dict(in_channels=32),
            'model.roi_head.bbox_head': dict(num_classes=num_classes),
            'model.roi_head.mask_head': dict(num_classes=num_classes),
            'model.test_cfg.rpn': dict(nms_pre=10, max_per_img=10),
        }
    )
    torch.manual_seed(0)
    detect = evamm.DetInferencer(config, weights=False, img_size=128, classes=classes)
    with torch.no_grad():
        for name, param in detect.model.named_parameters():
            if param.ndim > 1 and not name.startswith('backbone.'):
                param.copy_(torch.randn_like(param) / param[0].numel() ** 0.5)
    return detect
