"""Real detectors and segmentors of mmdet and mmseg run on the operators of `mmcv_ext`."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine import Config, ConfigDict

import evamm.registry  # noqa: F401  installs the operators

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

WIDTH = 32


def with_width(cfg: object) -> object:
    """A config tree whose feature maps have WIDTH channels instead of 256."""
    if isinstance(cfg, dict):
        return {key: with_width(value) for key, value in cfg.items()}
    if isinstance(cfg, list):
        return [with_width(value) for value in cfg]
    return WIDTH if cfg == 256 else cfg


def tiny_cascade_mask_rcnn() -> ConfigDict:
    import mmdet

    base = '.mim/configs/_base_/models/cascade-mask-rcnn_r50_fpn.py'
    cfg = with_width(Config.fromfile(Path(mmdet.__file__).parent / base).model.to_dict())
    cfg['backbone'] = dict(type='ResNet', depth=18, base_channels=8, init_cfg=None)
    cfg['neck']['in_channels'] = [8, 16, 32, 64]
    for head in (*cfg['roi_head']['bbox_head'], cfg['roi_head']['mask_head']):
        head['num_classes'] = 3
    for stage in (cfg['train_cfg']['rpn_proposal'], cfg['test_cfg']['rpn']):
        stage.update(nms_pre=200, max_per_img=50)
    soft_nms = dict(type='soft_nms', iou_threshold=0.5, min_score=1e-6)
    cfg['test_cfg']['rcnn'].update(score_thr=0.0, max_per_img=5, nms=soft_nms)
    return ConfigDict(cfg)


def test_cascade_mask_rcnn_trains_and_predicts() -> None:
    from mmdet.registry import MODELS
    from mmdet.testing import demo_mm_inputs
    from mmengine.registry import DefaultScope

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(tiny_cascade_mask_rcnn())
    images = demo_mm_inputs(2, [[3, 96, 128], [3, 80, 96]], num_classes=3, with_mask=True)

    losses = model(**model.data_preprocessor(images, training=True), mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    # The gradient of the box and the mask heads comes back through RoIAlign.
    grad = model.neck.fpn_convs[0].conv.weight.grad
    assert grad.isfinite().all() and grad.abs().sum() > 0

    model.eval()
    with torch.no_grad():
        (result,) = model(
            **model.data_preprocessor(demo_mm_inputs(1, [[3, 96, 128]])), mode='predict'
        )
    found = result.pred_instances
    assert len(found) == 5 and found.masks.shape == (5, 96, 128)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def tiny_mask2former() -> ConfigDict:
    def attention(**kwargs: object) -> dict:
        return dict(embed_dims=WIDTH, num_heads=4, batch_first=True, **kwargs)

    ffn = dict(embed_dims=WIDTH, feedforward_channels=64)
    position = dict(num_feats=WIDTH // 2, normalize=True)
    cross_entropy = dict(type='mmdet.CrossEntropyLoss')
    head = dict(
        type='Mask2FormerHead',
        in_channels=[8, 16, 32, 64],
        strides=[4, 8, 16, 32],
        feat_channels=WIDTH,
        out_channels=WIDTH,
        num_classes=5,
        num_queries=7,
        num_transformer_feat_level=3,
        align_corners=False,
        pixel_decoder=dict(
            type='mmdet.MSDeformAttnPixelDecoder',
            num_outs=3,
            norm_cfg=dict(type='GN', num_groups=8),
            act_cfg=dict(type='ReLU'),
            encoder=dict(
                num_layers=1,
                layer_cfg=dict(
                    self_attn_cfg=attention(num_levels=3, num_points=4),
                    ffn_cfg=copy.deepcopy(ffn),
                ),
            ),
            positional_encoding=position,
        ),
        positional_encoding=position,
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=3,
            layer_cfg=dict(self_attn_cfg=attention(), cross_attn_cfg=attention(), ffn_cfg=ffn),
        ),
        loss_cls=dict(cross_entropy, loss_weight=2.0, class_weight=[1.0] * 5 + [0.1]),
        loss_mask=dict(cross_entropy, use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=5.0),
        train_cfg=dict(
            num_points=100,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type='mmdet.HungarianAssigner',
                match_costs=[
                    dict(type='mmdet.ClassificationCost', weight=2.0),
                    dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
                    dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
                ],
            ),
            sampler=dict(type='mmdet.MaskPseudoSampler'),
        ),
    )
    return ConfigDict(
        type='EncoderDecoder',
        backbone=dict(type='ResNet', depth=18, base_channels=8, strides=(1, 2, 2, 2)),
        decode_head=head,
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )


def test_mask2former_trains_and_predicts() -> None:
    import mmseg.models  # noqa: F401
    from mmengine.registry import DefaultScope
    from mmengine.structures import PixelData
    from mmseg.registry import MODELS
    from mmseg.structures import SegDataSample

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(tiny_mask2former())
    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, 5, (1, 64, 64))))
    sample.set_metainfo(dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64)))
    images = torch.randn(1, 3, 64, 64)

    total, _ = model.parse_losses(model(images, [sample], mode='loss'))
    total.backward()
    assert total.isfinite()
    assert model.backbone.layer4[0].conv1.weight.grad.abs().sum() > 0

    model.eval()
    with torch.no_grad():
        (result,) = model(images, [sample], mode='predict')
    assert result.pred_sem_seg.data.shape == (1, 64, 64)
    assert set(result.pred_sem_seg.data.unique().tolist()) <= set(range(5))
