"""Configs of mmdet's own models take the trunk by its type alone, through stock tools."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

import evamm

from .detectors import MASK_RCNN, make_scenes

RETINANET = """
default_scope = 'mmdet'
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(
        type='evamm.EVAViT', arch=dict(embed_dims=32, depth=4, num_heads=2), img_size=64,
        patch_size=16, out_type='featmap', final_norm=False, with_cls_token=False,
        window_size=2, window_blocks=[0, 2]),
    neck=dict(type='evamm.SimpleFeaturePyramid', in_channels=32, out_channels=16),
    bbox_head=dict(
        type='RetinaHead', num_classes=3, in_channels=16, stacked_convs=1, feat_channels=16,
        anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1,
                              ratios=[1.0], strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss')),
    train_cfg=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0),
        sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.0,
                  nms=dict(type='nms', iou_threshold=0.5), max_per_img=10))
test_dataloader = dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=('a', 'b', 'c')),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)),
              dict(type='PackDetInputs')]))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_scenes(tmp_path / 'scenes')
    (tmp_path / 'detector.py').write_text(MASK_RCNN)
    (tmp_path / 'retina.py').write_text(RETINANET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda self, env_cfg: None)
    return tmp_path


def test_train_and_test_with_the_stock_runner(project: Path) -> None:
    """What mmdet's tools/train.py and tools/test.py do, then evamm reads what they wrote."""
    config = Config.fromfile('detector.py')
    runner = Runner.from_cfg(config)
    before = runner.model.backbone.blocks[0].attn.qkv.weight.clone()
    runner.train()
    assert not torch.equal(runner.model.backbone.blocks[0].attn.qkv.weight, before)
    trained = {name: value.clone() for name, value in runner.model.state_dict().items()}

    config = Config.fromfile('detector.py')
    config.merge_from_dict({'load_from': 'run/epoch_1.pth', 'experiment_name': 'test'})
    runner = Runner.from_cfg(config)
    metrics = runner.test()
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics)
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, trained[name]), name

    detect = evamm.DetInferencer('detector.py', 'run/epoch_1.pth')
    assert detect.classes == ('square', 'bar')
    for name, value in detect.model.state_dict().items():
        assert torch.equal(value, trained[name]), name
    assert detect('scenes/images', progress=False)['predictions'][3]['height'] == 64


def test_init_detector(project: Path) -> None:
    from mmdet.apis import inference_detector, init_detector

    for name in ('detector.py', 'retina.py'):
        ours = evamm.get_model(name)
        torch.save({'state_dict': ours.state_dict(), 'meta': {}}, 'weights.pth')
        with pytest.warns(UserWarning, match='use COCO classes by default'):
            model = init_detector(name, 'weights.pth', device='cpu')
        for key, value in model.state_dict().items():
            assert torch.equal(value, ours.state_dict()[key]), key
        sample = inference_detector(model, 'scenes/images/scene_0.png')
        image = 'scenes/images/scene_0.png'
        (result,) = evamm.DetInferencer(ours)(image, score_thr=0.0)['predictions']
        assert result['scores'] == pytest.approx(sample.pred_instances.scores.tolist(), abs=1e-6)
        assert len(result['scores']) > 0
        DefaultScope._instance_dict.clear()


def test_a_one_stage_detector_has_no_masks(project: Path) -> None:
    detect = evamm.DetInferencer('retina.py', weights=False)
    (result,) = detect('scenes/images/scene_1.png', score_thr=0.0)['predictions']
    assert 'masks' not in result
    assert len(result['names']) == len(result['bboxes']) == 10
    assert set(result['names']) <= {'a', 'b', 'c'}


def test_a_process_that_only_names_the_type(project: Path) -> None:
    """No import of evamm but the one that its cures need where mmcv is not compiled."""
    code = (
        'import evamm, json, sys\n'
        'from mmengine.config import Config\n'
        'from mmengine.runner import Runner\n'
        "assert 'evamm.models' not in sys.modules and 'mmdet' not in sys.modules\n"
        "runner = Runner.from_cfg(Config.fromfile('detector.py'))\n"
        'print(json.dumps([type(runner.model).__module__, type(runner.model.backbone).__name__]))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=False, cwd=project
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [
        'mmdet.models.detectors.mask_rcnn',
        'EVAViT',
    ]
