"""Detectors of the same size in evamm and in mmdet: configs, weights and a batch for them."""

import argparse
import copy
import re
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
CLASSES = 5  # few, so that scores of random weights are not all below the threshold


def trunk_config(name: str, args: argparse.Namespace) -> dict:
    """evamm's trunk and pyramid."""
    arch = dict(embed_dims=args.width, depth=args.depth, num_heads=args.width // 64)
    if name == 'vit':
        arch.update(ffn='mlp', qkv_bias='qkv', rope=False)
    else:
        arch.update(ffn_norm=True)
    backbone = dict(
        type='evamm.EVAViT',
        arch=arch,
        img_size=args.img_size,
        patch_size=16,
        pretrain_img_size=224,
        out_type='featmap',
        final_norm=False,
        with_cls_token=False,
        window_size=args.window,
        window_blocks=windowed(args),
        relative_position=name == 'vit',
    )
    return dict(
        backbone=backbone, neck=dict(type='evamm.SimpleFeaturePyramid', in_channels=args.width)
    )


def peer_config(args: argparse.Namespace) -> dict:
    """mmdet's trunk and pyramid."""
    backbone = dict(
        type='ViT',
        img_size=args.img_size,
        embed_dim=args.width,
        depth=args.depth,
        num_heads=args.width // 64,
        window_size=args.window,
        window_block_indexes=windowed(args),
        use_rel_pos=True,
    )
    neck = dict(
        type='SimpleFPN',
        backbone_channel=args.width,
        in_channels=[args.width // 4, args.width // 2, args.width, args.width],
        out_channels=256,
        num_outs=5,
        norm_cfg=dict(type='LN2d'),
    )
    return dict(backbone=backbone, neck=neck)


def windowed(args: argparse.Namespace) -> list[int]:
    """Blocks with windows: all but four at equal distances."""
    step = max(1, args.depth // 4)
    return [index for index in range(args.depth) if index % step != step - 1]


def detector_config(part: str, base: dict, norm: str, args: argparse.Namespace) -> dict:
    """mmdet's Mask R-CNN or Cascade Mask R-CNN with the layers that ViTDet has."""
    from mmengine.config import Config

    mmdet = Path(sys.modules['mmdet'].__file__).parent / '.mim/configs/_base_/models'
    name = 'mask-rcnn' if part == 'detector' else 'cascade-mask-rcnn'
    model = Config.fromfile(mmdet / f'{name}_r50_fpn.py').model
    model.backbone, model.neck = copy.deepcopy(base['backbone']), copy.deepcopy(base['neck'])
    model.data_preprocessor = dict(type='DetDataPreprocessor')
    model.rpn_head.num_convs = 2
    head = dict(
        type='Shared4Conv1FCBBoxHead',
        conv_out_channels=256,
        norm_cfg=dict(type=norm),
        num_classes=CLASSES,
    )
    boxes = model.roi_head.bbox_head
    for box in boxes if isinstance(boxes, list) else [boxes]:
        box.update(head)
    model.roi_head.mask_head.update(norm_cfg=dict(type=norm), num_classes=CLASSES)
    stages = model.train_cfg.rcnn
    for stage in stages if isinstance(stages, list) else [stages]:
        stage.sampler.num = args.samples
        stage.mask_size = 28
    model.train_cfg.rpn_proposal.update(nms_pre=args.proposals, max_per_img=args.proposals)
    model.test_cfg.rpn.update(nms_pre=args.proposals, max_per_img=args.proposals)
    return model


def cascade_config(base: dict, args: argparse.Namespace) -> dict:
    """evamm's detector, as its configs build it."""
    from mmengine.config import Config

    model = Config.fromfile(CONFIGS / '_base_/models/cascade_mask_rcnn_eva.py').model
    model.backbone = copy.deepcopy(base['backbone'])
    model.neck.in_channels = args.width
    model.data_preprocessor.pad_size = args.img_size
    model.roi_head.bbox_head.num_classes = model.roi_head.mask_head.num_classes = CLASSES
    model.train_cfg.rcnn[0].sampler.num = args.samples
    model.train_cfg.rpn_proposal.update(nms_pre=args.proposals, max_per_img=args.proposals)
    model.test_cfg.rpn.update(nms_pre=args.proposals, max_per_img=args.proposals)
    return model


class Maps(nn.Module):
    """Trunk and pyramid; its loss is the mean square of every second channel.

    That of all channels would be 1, whatever the weights: the maps end in a LayerNorm.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.neck(self.backbone(images))

    def predict(self, images: Tensor, samples: list) -> object:
        return self(images)

    def loss(self, images: Tensor, samples: list) -> dict[str, Tensor]:
        return {'loss': sum(maps[:, ::2].float().square().mean() for maps in self(images))}


def build(trunk: str, part: str, args: argparse.Namespace) -> dict[str, nn.Module]:
    """Both models; with the same weights where they compute the same."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    torch.manual_seed(0)
    ours, theirs = trunk_config(trunk, args), peer_config(args)
    with DefaultScope.overwrite_default_scope('mmdet'):
        if part == 'maps':
            models = {
                name: Maps(MODELS.build(config['backbone']), MODELS.build(config['neck']))
                for name, config in (('evamm', ours), ('mmdet', theirs))
            }
        else:
            peer = detector_config(part, theirs, 'LN2d', args)
            own = (
                cascade_config(ours, args)
                if part == 'cascade'
                else detector_config(part, ours, 'evamm.LayerNorm2d', args)
            )
            models = {'evamm': MODELS.build(own), 'mmdet': MODELS.build(peer)}
    with torch.no_grad():
        for model in models.values():
            for name, param in model.named_parameters():
                if 'rel_pos' in name or param.ndim == 3:
                    param.copy_(0.02 * torch.randn_like(param))
                elif param.ndim > 1:
                    param.copy_(torch.randn_like(param) / param[0].numel() ** 0.5)
    if trunk == 'vit' and part != 'cascade':
        models['mmdet'].load_state_dict(to_mmdet(models['evamm'].state_dict()))
    return models


def to_mmdet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of evamm's trunk, pyramid and norms in mmdet's project."""
    renamed = {}
    for name, value in state.items():
        for pattern, new in (
            (r'^neck\.levels\.(\d)\.lateral\.', r'neck.lateral_convs.\1.'),
            (r'^neck\.levels\.(\d)\.output\.', r'neck.fpn_convs.\1.'),
            (r'^(neck\.\w+_convs\.\d)\.norm\.', r'\1.norm_layer.'),
            (r'^(roi_head\..*)\.ln\.', r'\1.norm_layer.'),
        ):
            name = re.sub(pattern, new, name)
        level = re.match(r'^neck\.levels\.(\d)\.resize\.', name)
        if level:
            name = f'neck.fpn{int(level[1]) + 1}.{name[level.end() :]}'
        renamed[name] = value
    return renamed


def batch_of(args: argparse.Namespace) -> tuple[Tensor, list]:
    """Normalised images [B, 3, S, S] and their objects."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    rng = np.random.default_rng(0)
    side = args.img_size
    samples = []
    for _ in range(args.batch):
        corners = rng.integers(0, side * 3 // 4, (args.objects, 2))
        sizes = rng.integers(side // 16, side // 4, (args.objects, 2))
        boxes = np.concatenate([corners, corners + sizes], axis=1)
        masks = np.zeros((args.objects, side, side), np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top:bottom, left:right] = 1
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(side, side),
                ori_shape=(side, side),
                pad_shape=(side, side),
                batch_input_shape=(side, side),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes).float(),
            labels=torch.from_numpy(rng.integers(0, CLASSES, args.objects)),
            masks=BitmapMasks(masks, side, side),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample.to(args.device))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(args.batch, 3, side, side, generator=generator)
    return images.to(args.device), samples
