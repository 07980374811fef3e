"""The detector heads give the official code's numbers (tests/data/golden)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

pytest.importorskip('mmdet')

from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from . import detection_case as case
from .common import relative_error

GOLDEN = load_file(Path(__file__).parents[1] / 'data' / 'golden' / 'detection_heads.safetensors')
TOLERANCE = 1e-5
# Where rounding, which differs from processor to processor, decides on which side of a kink a
# number falls: ReLUs whose input is almost 0 (gradients), pixels whose probability is almost one
# half (in or out of a mask, in or out of maskness). In float64 the same few fall to the other side.
KINKS = 1e-2
MASKNESS_KINKS = 2e-4
PIXELS = 2  # of 300,000 and more
ORIGINAL = [(96, 64), (96, 60), (64, 80)]  # height, width of the images before they were resized
STAGES = range(3)


def proposal_cfg(pre: int, post: int) -> dict:
    return dict(nms_pre=pre, max_per_img=post, nms=dict(type='nms', iou_threshold=0.7))


def thresholds(low: float, high: float, **kwargs: object) -> dict:
    return dict(type='evamm.IoUMatcher', pos_iou_thr=high, neg_iou_thr=low, **kwargs)


TRAIN = ConfigDict(
    rpn=dict(
        assigner=thresholds(0.3, 0.7, match_low_quality=True),
        sampler=dict(type='evamm.BalancedSampler', num=1500, pos_fraction=0.5),
    ),
    rcnn=[
        dict(
            assigner=thresholds(0.5, 0.5),
            sampler=dict(
                type='evamm.BalancedSampler', num=96, pos_fraction=0.25, add_gt_as_proposals=True
            ),
        ),
        dict(assigner=thresholds(0.6, 0.6)),
        dict(assigner=thresholds(0.7, 0.7)),
    ],
)
TEST = dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=60)
SOFT = dict(method='linear', iou_threshold=0.6, sigma=0.5, min_score=1e-3, class_wise=True)
FEDERATED = dict(type='evamm.FederatedLoss', num_sampled_classes=4, frequencies=case.IMAGE_COUNTS)


class Heads(nn.Module):
    """RPN and RoI head of the case with their weights."""

    def __init__(self, loss_cls: dict | None = None, **rcnn: object) -> None:
        super().__init__()
        from mmdet.registry import MODELS

        channels = dict(in_channels=case.CHANNELS)
        head = dict(channels, conv_out_channels=case.CHANNELS, num_classes=case.CLASSES)
        box = dict(
            head, type='evamm.ViTDetBBoxHead', fc_out_channels=case.HIDDEN, loss_cls=loss_cls
        )
        pool = dict(type='evamm.ViTDetRoIExtractor', out_channels=case.CHANNELS)
        with DefaultScope.overwrite_default_scope('mmdet'):
            self.rpn_head = MODELS.build(
                dict(
                    channels,
                    type='evamm.ViTDetRPNHead',
                    feat_channels=case.CHANNELS,
                    train_cfg=TRAIN.rpn,
                    test_cfg=ConfigDict(proposal_cfg(200, 100)),
                )
            )
            self.roi_head = MODELS.build(
                dict(
                    type='evamm.ViTDetCascadeRoIHead',
                    bbox_roi_extractor=dict(pool, output_size=7),
                    bbox_head=box,
                    mask_roi_extractor=dict(pool, output_size=14),
                    mask_head=dict(head, type='evamm.ViTDetMaskHead'),
                    train_cfg=TRAIN.rcnn,
                    test_cfg=ConfigDict({**TEST, **rcnn}),
                )
            )
        shapes = {name: value.shape for name, value in self.named_parameters()}
        self.load_state_dict(case.state_dict(shapes), strict=True)

    def losses(self, levels: list[Tensor], samples: list[DetDataSample]) -> dict[str, Tensor]:
        losses, self.proposals = self.rpn_head.loss_and_predict(
            levels, samples, proposal_cfg=ConfigDict(proposal_cfg(300, 150))
        )
        torch.manual_seed(7)  # the federated loss draws classes
        return losses | self.roi_head.loss(levels, self.proposals, samples)

    @torch.no_grad()
    def predict(self) -> list[InstanceData]:
        levels, samples = case.features(), data_samples()
        self.proposals = self.rpn_head.predict(levels, samples)
        return self.roi_head.predict(levels, self.proposals, samples, rescale=True)


def data_samples(bitmaps: bool = False) -> list[DetDataSample]:
    samples = []
    for boxes, labels, size, original in zip(case.BOXES, case.LABELS, case.SIZES, ORIGINAL):
        masks = PolygonMasks(case.polygons(boxes), *size)
        if bitmaps:
            masks = BitmapMasks(masks.to_ndarray().reshape(-1, *size), *size)
        gt = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
            labels=torch.tensor(labels, dtype=torch.long),
            masks=masks,
        )
        sample = DetDataSample(gt_instances=gt)
        scale = (size[1] / original[1], size[0] / original[0])
        sample.set_metainfo(dict(img_shape=size, ori_shape=original, scale_factor=scale))
        samples.append(sample)
    return samples


@pytest.fixture(scope='module')
def trained() -> Iterator[dict[str, Tensor]]:
    """Losses, proposals, what the stages saw and said, and all gradients of one step."""
    found = {}
    patch = pytest.MonkeyPatch()
    patch.setattr(torch, 'rand', case.spread)
    heads, levels = Heads(), case.features()
    levels = [level.requires_grad_() for level in levels]
    for stage, head in enumerate(heads.roi_head.bbox_head):
        of_head = head.losses

        def losses(*args: Tensor, stage: int = stage, of_head: object = of_head) -> object:
            scores, deltas, boxes, _, labels = args
            found.update(
                {
                    f'stage{stage}.scores': scores,
                    f'stage{stage}.deltas': deltas,
                    f'stage{stage}.boxes': boxes,
                    f'stage{stage}.labels': labels,
                }
            )
            return of_head(*args)

        head.losses = losses
    found.update(heads.losses(levels, data_samples()))
    sum(value for name, value in found.items() if 'loss' in name).backward()
    for number, proposals in enumerate(heads.proposals):
        found[f'proposals.{number}'] = proposals.bboxes
        found[f'objectness.{number}'] = proposals.scores
    for stride, level in zip((4, 8, 16, 32, 64), levels):
        found[f'grad.level{stride}'] = level.grad
    found.update({f'grad.{name}': value.grad for name, value in heads.named_parameters()})
    patch.undo()
    yield found


@pytest.mark.parametrize(
    'name',
    [name.removeprefix('train.') for name in GOLDEN if name.startswith('train.loss')]
    + [f's{stage}.loss_{part}' for stage in STAGES for part in ('cls', 'bbox')],
)
def test_losses(trained: dict[str, Tensor], name: str) -> None:
    assert relative_error(trained[name], GOLDEN[f'train.{name}']) < TOLERANCE


def test_proposals(trained: dict[str, Tensor]) -> None:
    heads = Heads()
    heads.predict()
    for number in range(3):
        sets = {
            'train': (trained[f'proposals.{number}'], trained[f'objectness.{number}']),
            'test': (heads.proposals[number].bboxes, heads.proposals[number].scores),
        }
        for mode, (boxes, scores) in sets.items():
            assert relative_error(boxes, GOLDEN[f'{mode}.proposals.{number}']) < TOLERANCE
            logits = GOLDEN[f'{mode}.objectness.{number}']
            assert relative_error(scores, logits.sigmoid()) < TOLERANCE


@pytest.mark.parametrize('stage', STAGES)
def test_stages(trained: dict[str, Tensor], stage: int) -> None:
    def expected(name: str) -> Tensor:
        return GOLDEN[f'train.stage{stage}.{name}']

    found = {name: trained[f'stage{stage}.{name}'] for name in ('boxes', 'scores', 'deltas')}
    assert trained[f'stage{stage}.labels'].tolist() == expected('labels').tolist()
    assert relative_error(found['boxes'], expected('rois')[:, 1:]) < TOLERANCE
    for name in ('scores', 'deltas'):
        assert relative_error(found[name], expected(name)) < TOLERANCE


GRADIENTS = [name for name in GOLDEN if name.startswith('train.grad.')]


@pytest.mark.parametrize('part', ['level', 'rpn_head', 'bbox_head.0', 'bbox_head.2', 'mask_head'])
def test_gradients(trained: dict[str, Tensor], part: str) -> None:
    names = [name for name in GRADIENTS if part in name]
    assert names
    for name in names:
        error = relative_error(trained[name.removeprefix('train.')], GOLDEN[name])
        assert error < KINKS, name


def test_bitmap_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, 'rand', case.spread)
    losses = Heads().losses(case.features(), data_samples(bitmaps=True))
    assert relative_error(losses['loss_mask'], GOLDEN['bitmap.loss_mask']) < TOLERANCE
    # Averaged bitmaps are not the same as polygons drawn anew.
    assert relative_error(losses['loss_mask'], GOLDEN['train.loss_mask']) > TOLERANCE


def test_federated_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, 'rand', case.spread)
    levels = [level.requires_grad_() for level in case.features()]
    losses = Heads(loss_cls=FEDERATED).losses(levels, data_samples())
    for stage in STAGES:
        name = f's{stage}.loss_cls'
        assert relative_error(losses[name], GOLDEN[f'lvis.{name}']) < TOLERANCE
    sum(losses.values()).backward()
    assert relative_error(levels[1].grad, GOLDEN['lvis.grad.level8']) < 2 * TOLERANCE


PRESETS = {
    'nms': {},
    'soft_nms': dict(soft_nms=dict(SOFT, score_thr=0.0)),
    'soft_nms_threshold': dict(soft_nms=dict(SOFT, method='gaussian')),
    'soft_nms_agnostic': dict(soft_nms=dict(SOFT, class_wise=False, score_thr=0.0)),
    'maskness': dict(soft_nms=SOFT, maskness_thr=0.5),
    'lvis': dict(loss_cls=FEDERATED, score_thr=0.3),
}


@pytest.mark.parametrize('name', PRESETS)
def test_detections(name: str) -> None:
    for number, found in enumerate(Heads(**PRESETS[name]).predict()):
        expected = {
            part: GOLDEN[f'{name}.{number}.{part}'] for part in ('bboxes', 'scores', 'labels')
        }
        assert found.labels.tolist() == expected['labels'].tolist()
        assert relative_error(found.bboxes, expected['bboxes']) < TOLERANCE
        tolerance = MASKNESS_KINKS if name == 'maskness' else TOLERANCE
        assert relative_error(found.scores, expected['scores']) < tolerance
        if name == 'nms':
            packed = np.packbits(found.masks.numpy().reshape(len(found), -1), axis=1)
            others = np.unpackbits(packed ^ GOLDEN[f'nms.{number}.masks'].numpy())
            assert others.sum() <= PIXELS
