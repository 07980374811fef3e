"""The whole detector: training steps and predictions, on odd data too."""

import copy
from functools import reduce
from operator import getitem

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from torch import Tensor, nn

pytest.importorskip('mmdet')

from mmengine import ConfigDict

from evamm.engine.errors import ConfigError
from evamm.engine.flop_meter import FlopMeter
from evamm.engine.runner.parts import check_losses, check_parts
from evamm.evaluation.detection.predictions import encode_masks

from .tiny import DIMS, batch, build, sample, tiny_cfg

OBJECTS = [[4, 4, 40, 40], [10, 20, 60, 44]], [0, 2]


def losses_of(model: nn.Module, *samples: object) -> dict[str, Tensor]:
    data = model.data_preprocessor(batch(*samples), True)
    return model(**data, mode='loss')


def train_step(model: nn.Module, *samples: object) -> dict[str, Tensor]:
    losses = losses_of(model, *samples)
    sum(value for value in losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    for name, value in model.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), name
    return losses


def without_masks() -> ConfigDict:
    cfg = tiny_cfg()
    del cfg.roi_head['mask_head'], cfg.roi_head['mask_roi_extractor']
    return cfg


def predict(model: nn.Module, **meta: object) -> object:
    found = sample([], [], masks=False)
    found.set_metainfo(meta)
    with torch.no_grad():
        torch.manual_seed(0)  # the same image every time
        data = model.data_preprocessor(batch(found), False)
        (found,) = model.eval()(**data, mode='predict')
    return found.pred_instances


def test_a_step_trains_every_parameter() -> None:
    losses = train_step(build(tiny_cfg()).train(), sample(*OBJECTS), sample([], []))
    stages = [f's{stage}.loss_{part}' for stage in range(3) for part in ('cls', 'bbox')]
    assert sorted(losses) == sorted([*stages, 'loss_mask', 'loss_rpn_cls', 'loss_rpn_bbox'])
    assert losses['loss_mask'] > 0.1 and losses['s0.loss_bbox'] > 0


# An image whose objects are all crowds arrives without objects: crowds are not trained on.
ODD_BATCHES = {
    'no objects at all': [sample([], []), sample([], [])],
    'no masks': [sample(*OBJECTS, masks=False)],
    'masks in one image only': [sample(*OBJECTS, masks=False), sample([[4, 4, 30, 30]], [1])],
    'an object without area': [sample([[4, 4, 4, 30], [5, 5, 50, 40]], [0, 1])],
    'an object outside': [sample([[70, 70, 90, 90]], [0])],
}


@pytest.mark.parametrize('name', ODD_BATCHES)
def test_odd_images_train(name: str) -> None:
    losses = train_step(build(tiny_cfg()).train(), *copy.deepcopy(ODD_BATCHES[name]))
    if name in ('no objects at all', 'no masks'):
        assert losses['loss_mask'] == 0
    if name == 'masks in one image only':
        assert losses['loss_mask'] > 0.1


def test_no_box_left_is_no_crash() -> None:
    cfg = tiny_cfg()
    cfg.train_cfg.rcnn[0].sampler.add_gt_as_proposals = False
    cfg.train_cfg.rpn_proposal.min_bbox_size = 1e9
    losses = train_step(build(cfg).train(), sample(*OBJECTS))
    assert losses['s0.loss_cls'] == losses['s2.loss_bbox'] == losses['loss_mask'] == 0


def test_empty_boxes_do_not_reach_the_next_stage() -> None:
    model = build(tiny_cfg()).train()
    first, second, _ = model.roi_head.bbox_head
    # Everything moves by 1.1 times its width; what touched the right rim leaves the image.
    nn.init.zeros_(first.fc_reg.weight)
    first.fc_reg.bias.data = torch.tensor([11.0, 0, 0, 0])
    seen = {}
    for name, head in (('first', first), ('second', second)):
        head.losses = lambda *args, name=name, of_head=head.losses: (
            seen.update({name: args}) or of_head(*args)
        )
    losses_of(model, sample(*OBJECTS))
    boxes = seen['first'][2]
    left = boxes[:, 0] + 1.1 * (boxes[:, 2] - boxes[:, 0])
    assert (left >= 64).any()
    assert len(seen['second'][2]) == int((left < 64).sum())
    widths = seen['second'][2][:, 2] - seen['second'][2][:, 0]
    assert (widths > 0).all() and (seen['second'][2][:, 2] <= 64).all()


def test_rpn_losses_are_divided_by_what_was_to_be_sampled() -> None:
    losses = {}
    for num in (5000, 10000):  # there are 1023 anchors
        torch.manual_seed(0)
        cfg = tiny_cfg()
        cfg.train_cfg.rpn.sampler.num = num
        losses[num] = losses_of(build(cfg).train(), sample(*OBJECTS), sample([], []))
    for name in ('loss_rpn_cls', 'loss_rpn_bbox'):
        torch.testing.assert_close(losses[5000][name], 2 * losses[10000][name])
        assert losses[5000][name] > 0


def test_boxes_only() -> None:
    model = build(without_masks()).train()
    losses = train_step(model, sample(*OBJECTS, masks=False))
    assert 'loss_mask' not in losses
    model.roi_head.test_cfg.score_thr = 0.0
    found = predict(model, ori_shape=(96, 128), scale_factor=(0.5, 0.5))
    assert 'masks' not in found and found.bboxes[:, 2].max() > 64


def test_it_predicts_boxes_and_masks_in_original_pixels() -> None:
    cfg = tiny_cfg()
    cfg.test_cfg.rcnn.score_thr = 0.0
    found = predict(build(cfg), ori_shape=(96, 128), scale_factor=(0.5, 0.5))
    assert 0 < len(found) <= 100 and found.masks.shape == (len(found), 96, 128)
    assert (found.bboxes[:, 2] <= 128).all() and found.bboxes[:, 2].max() > 64
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_masks_come_as_codes_where_a_config_says_so() -> None:
    cfg = tiny_cfg()
    cfg.test_cfg.rcnn.update(score_thr=0.0, maskness_thr=0.3)
    model = build(cfg)
    meta = dict(ori_shape=(96, 128), scale_factor=(0.5, 0.5))
    expected = predict(model, **meta)
    model.roi_head.test_cfg.mask_format = 'rle'
    found = predict(model, **meta)
    assert len(found) == len(found.masks) > 0 and expected.masks.any()
    assert torch.equal(found.scores, expected.scores)
    decoded = np.stack([rle.decode(code) for code in found.masks])
    assert (decoded == expected.masks.numpy()).all()
    metric = [encode_masks(instances.masks) for instances in (found, expected)]
    assert metric[0] == metric[1]


@pytest.mark.parametrize('cfg', [tiny_cfg(), without_masks()], ids=['masks', 'boxes'])
def test_what_is_empty_in_the_original_image_is_left_out(cfg: ConfigDict) -> None:
    cfg.test_cfg.rcnn.score_thr = 0.0
    model = build(cfg)
    whole, part = (predict(model, ori_shape=shape) for shape in ((48, 64), (24, 20)))
    sizes = part.bboxes[:, 2:] - part.bboxes[:, :2]
    assert 0 < len(part) < len(whole) and (sizes > 0).all()
    assert len(part.scores) == len(part.labels) == len(part)


def test_no_detection() -> None:
    cfg = tiny_cfg()
    cfg.test_cfg.rcnn.update(score_thr=1.0, maskness_thr=0.5)
    for soft_nms in (None, dict(method='linear', iou_threshold=0.6)):
        cfg.test_cfg.rcnn.soft_nms = soft_nms
        found = predict(build(cfg))
        assert found.bboxes.shape == (0, 4) and found.masks.shape == (0, 48, 64)


def test_soft_nms_is_not_cut_at_max_per_img() -> None:
    cfg = tiny_cfg()
    cfg.test_cfg.rcnn.update(max_per_img=3, soft_nms=dict(iou_threshold=0.6, score_thr=0.0))
    assert len(predict(build(cfg))) > 3


def test_heads_run_in_float32_under_autocast_unless_told_otherwise() -> None:
    seen = {}
    for autocast in (False, True):
        cfg = tiny_cfg()
        cfg.rpn_head.autocast = cfg.roi_head.autocast = autocast
        model = build(cfg).train()
        parts = dict(
            rpn=model.rpn_head.rpn_cls,
            box=model.roi_head.bbox_head[1].fc_cls,
            mask=model.roi_head.mask_head.upsample,
            neck=model.neck.levels[2].output.conv,
        )
        for name, part in parts.items():
            part.register_forward_hook(
                lambda module, args, out, name=name: seen.update({name: out.dtype})
            )
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = losses_of(model, sample(*OBJECTS))
        assert {value.dtype for value in losses.values()} == {torch.float32}
        sum(losses.values()).backward()
        of_heads = torch.bfloat16 if autocast else torch.float32
        expected = dict(rpn=of_heads, box=of_heads, mask=of_heads, neck=torch.bfloat16)
        assert seen == expected


def test_heads_run_on_the_meta_device() -> None:
    """Which has no autocast: sizes of a model are counted there."""
    head = build(tiny_cfg()).rpn_head.to('meta')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        scores, _ = head([torch.empty(1, DIMS, 4, 4, device='meta') for _ in range(5)])
    assert scores[0].shape == (1, 3, 4, 4)


def test_half_precision_weights_train() -> None:
    model = build(tiny_cfg()).train()
    data = model.data_preprocessor(batch(sample(*OBJECTS)), True)
    data['inputs'] = data['inputs'].bfloat16()
    losses = model.bfloat16()(**data, mode='loss')
    assert {value.dtype for value in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    assert model.roi_head.mask_head.conv_logits.weight.grad.dtype == torch.bfloat16


def test_only_losses_that_act_are_shown() -> None:
    """A model that is printed should not name others."""
    model = build(tiny_cfg())
    shown = {name for name, part in model.named_modules() if 'loss' in name.rpartition('.')[2]}
    stages = [f'roi_head.bbox_head.{stage}' for stage in range(3)]
    assert shown == {f'{stage}.loss_{part}' for stage in stages for part in ('cls', 'bbox')}


def test_proposals_without_nms_are_refused() -> None:
    model = build(tiny_cfg())
    found = sample([], [])
    data = model.data_preprocessor(batch(found), False)
    outputs = model.rpn_head(model.extract_feat(data['inputs']))
    options = dict(batch_img_metas=[found.metainfo])
    assert len(model.rpn_head.predict_by_feat(*outputs, **options)[0])
    with pytest.raises(ValueError, match='with_nms=False'):
        model.rpn_head.predict_by_feat(*outputs, with_nms=False, **options)


def test_plain_forward_gives_all_outputs() -> None:
    model = build(tiny_cfg()).eval()
    data = model.data_preprocessor(batch(sample([], [])), False)
    with torch.no_grad():
        ((probabilities, boxes, masks),) = model(**data, mode='tensor')
    assert len(boxes) > 100 and probabilities.shape == (len(boxes), 4)
    assert masks.shape == (len(boxes), 3, 28, 28)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda rcnn: rcnn.pop(), '2 configs for 3 stages'),
        (lambda rcnn: rcnn[0].pop('sampler'), 'first stage needs a sampler'),
        (lambda rcnn: rcnn[1].update(sampler=rcnn[0].sampler), 'take none'),
    ],
)
def test_a_wrong_train_cfg_is_named(change: object, message: str) -> None:
    cfg = tiny_cfg()
    change(cfg.train_cfg.rcnn)
    with pytest.raises(ValueError, match=message):
        build(cfg)


def test_the_flop_meter_counts_every_part() -> None:
    model = build(tiny_cfg()).eval()
    rois = []
    model.roi_head.bbox_head[0].fc_cls.register_forward_hook(
        lambda module, args, out: rois.append(len(out))
    )
    meter = FlopMeter(model)
    assert meter.blind == []
    meter.active = True
    model.roi_head.test_cfg.score_thr = 1.0  # no masks
    predict(model)
    macs = meter.take()[0] / 2
    trunk = model.backbone.count_macs((1, 3, 64, 64))
    deconvs = 4 * (16 * 32 * 16 + 64 * 16 * 8 + 16 * 32 * 16)
    levels = zip((256, 64, 16, 4), (8, 16, 32, 32))
    neck = deconvs + sum(area * DIMS * (channels + 9 * DIMS) for area, channels in levels)
    places = sum(side * side for side in (16, 8, 4, 2, 1))
    rpn = places * DIMS * (2 * 9 * DIMS + 15)
    box = rois[0] * (4 * 49 * 9 * DIMS * DIMS + 49 * DIMS * 32 + 32 * (4 + 4))
    assert macs == trunk + neck + rpn + 3 * box


HEADS = (
    'rpn_head.in_channels',
    'roi_head.bbox_roi_extractor.out_channels',
    'roi_head.bbox_head.in_channels',
    'roi_head.mask_roi_extractor.out_channels',
    'roi_head.mask_head.in_channels',
)


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (
            {'neck.in_channels': 64},
            'model.neck.in_channels is 64, but model.backbone (its arch and out_indices) gives 1 '
            'map of 32 channels: set model.neck.in_channels=32.',
        ),
        (
            {'neck': dict(type='FPN', in_channels=[32, 32], out_channels=DIMS, num_outs=5)},
            'model.neck.in_channels is [32, 32], but model.backbone (its arch and out_indices) '
            'gives 1 map of 32 channels: set model.neck.in_channels=[32].',
        ),
        *(
            (
                {key: 20},
                f'model.neck.out_channels is {DIMS}, but model.{key} is 20: set all of them to '
                'one number.',
            )
            for key in HEADS
        ),
        (
            {'neck.out_channels': 20},
            'model.neck.out_channels is 20, but '
            + ', '.join(f'model.{key} is {DIMS}' for key in HEADS)
            + ': set all of them to one number.',
        ),
        (
            {'neck': None, 'rpn_head.in_channels': 32},
            'the width of model.backbone is 32, but '
            + ', '.join(f'model.{key} is {DIMS}' for key in HEADS[1:])
            + ': set all of them to one number.',
        ),
        (
            {'data_preprocessor.pad_size': 70},
            'model.data_preprocessor.pad_size is 70, which is no multiple of the 16 pixels of a '
            'patch (model.backbone.patch_size): set it to a multiple, such as 64.',
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(changes: dict, words: str) -> None:
    cfg = tiny_cfg()
    for key, value in changes.items():
        *path, last = key.split('.')
        reduce(getitem, path, cfg)[last] = value
    with pytest.raises(ConfigError) as error:
        check_parts(build(cfg))
    assert str(error.value) == words


def test_parts_that_fit() -> None:
    """Poolings of evamm need nothing but their width in a config; a pyramid lists its maps."""
    cfg = tiny_cfg(size=96)
    cfg.backbone.img_size = 64  # of no account: everything follows the grid of the batch
    cfg.backbone.out_indices = (0, 1)
    cfg.neck = dict(type='FPN', in_channels=[32, 32], out_channels=DIMS, num_outs=5)
    for name in ('bbox', 'mask'):
        cfg.roi_head[f'{name}_roi_extractor'] = dict(out_channels=DIMS)
    model = build(cfg)
    check_parts(model)
    check_losses(model)
    for name, size in (('bbox', 7), ('mask', 14)):
        pool = getattr(model.roi_head, f'{name}_roi_extractor')
        pool = pool[0] if name == 'bbox' else pool
        assert pool.out_channels == DIMS and pool.roi_layers[0].output_size == (size, size)


def test_frequencies_of_other_classes_are_named() -> None:
    cfg = tiny_cfg(num_classes=3)
    cfg.roi_head.bbox_head.loss_cls = dict(type='evamm.FederatedLoss', frequencies=[5, 6, 7, 8])
    model = build(cfg)
    check_parts(model)  # predictions have no losses
    with pytest.raises(ConfigError) as error:
        check_losses(model)
    loss = 'model.roi_head.bbox_head.loss_cls'
    assert str(error.value) == (
        f'{loss}.frequencies is for 4 classes, but num_classes of the head is 3: give the number '
        f'of training images of each of its classes, or {loss}.num_sampled_classes=None to train '
        'on all of them.'
    )
    for fits in (dict(frequencies=[5, 6, 7]), dict(num_sampled_classes=None)):
        cfg.roi_head.bbox_head.loss_cls = dict(type='evamm.FederatedLoss', **fits)
        check_losses(build(cfg))
