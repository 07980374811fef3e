"""What docs/en/detection.md says is so, and its code runs as it is printed there."""

import json
import re
from argparse import ArgumentParser
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from PIL import Image

import evamm
from evamm.apis.model_index import find_entry
from evamm.checkpoints import write_checkpoint
from evamm.checkpoints.download import cache_path

from .detectors import make_scenes

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs/en/detection.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
CONFIG = next(block for block in BLOCKS if 'kitchen' in block)


def test_the_first_commands_train_what_the_later_ones_start_from() -> None:
    block = re.search(r'```shell\n(.*?)```', PAGE, re.DOTALL)[1]
    paths = re.findall(r'tools/train.py (\S+)', block)
    assert paths[-1].endswith('cascade_mask_rcnn_eva02_tiny_digits.py')
    trained: set[str] = set()
    for path in paths:
        text = Config.fromfile(ROOT / path).dump()
        assert set(re.findall(r"'work_dirs/(\w+)/iter_\d+\.pth'", text)) <= trained, path
        trained.add(Path(path).stem)
    assert len(trained) > 1


def shrink(config: Config) -> None:
    """Everything small enough for a test; names, classes and structure stay."""
    config.model.backbone.pop('arch')
    channels = 16
    roi = dict(type='evamm.ViTDetRoIExtractor', out_channels=channels)
    small = dict(in_channels=channels, conv_out_channels=channels)
    config.merge_from_dict(
        {
            'model.data_preprocessor.pad_size': 64,
            'model.backbone': dict(
                arch=dict(embed_dims=32, depth=2, num_heads=2),
                img_size=64,
                window_size=2,
                window_blocks=[0],
            ),
            'model.neck': dict(in_channels=32, out_channels=channels),
            'model.rpn_head': dict(in_channels=channels, feat_channels=channels),
            'model.roi_head': dict(
                bbox_roi_extractor=dict(roi, output_size=7),
                mask_roi_extractor=dict(roi, output_size=14),
                bbox_head=dict(small, fc_out_channels=32),
                mask_head=small,
            ),
            'model.train_cfg.rpn_proposal': dict(nms_pre=20, max_per_img=20),
            'model.test_cfg.rpn': dict(nms_pre=10, max_per_img=10),
        }
    )
    config.model.train_cfg.rcnn[0].sampler.num = 8
    for part in ('train', 'test', 'val'):
        for step in config[f'{part}_dataloader'].dataset.pipeline:
            if 'size' in step:
                step.size = 64


@pytest.fixture
def kitchen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data that the page describes, and its config, in a folder laid out like a clone."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs', target_is_directory=True)
    for split in ('train', 'val'):
        made = make_scenes(tmp_path / split)
        (tmp_path / 'data/kitchen').mkdir(parents=True, exist_ok=True)
        (tmp_path / split / 'images').rename(tmp_path / 'data/kitchen' / split)
        made.rename(tmp_path / 'data/kitchen' / f'{split}.json')
    (tmp_path / 'kitchen.py').write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('mmengine.runner.Runner._log_env', lambda self, env_cfg: None)
    return tmp_path


def test_own_data(kitchen: Path) -> None:
    """Its ten lines train from a detector of 80 classes, are tested, and find objects by name."""
    from evamm.engine.runner import launch

    assert len(CONFIG.strip().splitlines()) == 10  # ten lines are promised
    config = Config.fromfile('kitchen.py')
    assert config.model.roi_head.bbox_head.num_classes == 2
    # Nothing but `load_from` is fetched, and a run that breaks off has saved something.
    assert config.model.backbone.init_cfg is None
    assert config.default_hooks.checkpoint.interval < config.train_cfg.max_iters
    shrink(config)
    start = evamm.get_model(config, num_classes=80)
    write_checkpoint({'model': start.state_dict()}, 'start.pth')
    config.merge_from_dict(
        {
            'load_from': 'start.pth',
            'work_dir': 'run',
            'train_cfg': dict(max_iters=2, val_interval=2),
            'param_scheduler': dict(warmup_steps=0, milestones=[]),
            'default_hooks.checkpoint.interval': 2,
            'launcher': 'none',
        }
    )
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        config[loader].update(num_workers=0, persistent_workers=False, pin_memory=False)
    with pytest.warns(UserWarning, match='class'):
        runner = launch.build_runner(config)
        runner.train()
    trunk = runner.model.backbone.blocks[1].attn.qkv.weight
    assert torch.allclose(trunk, start.backbone.blocks[1].attn.qkv.weight, atol=1e-3)
    assert runner.model.roi_head.bbox_head[0].fc_cls.out_features == 3
    scalars = Path(runner.log_dir, 'vis_data/scalars.json').read_text()
    assert 'coco/bbox_mAP' in scalars and 'coco/segm_mAP' in scalars

    detect = evamm.DetInferencer(config, 'run/iter_2.pth')
    assert detect.classes == ('bar', 'square')
    (result,) = detect('data/kitchen/val/scene_0.png', score_thr=0.0)['predictions']
    assert len(result['masks']) == len(result['names']) > 0


def test_boxes_only(kitchen: Path) -> None:
    """The page's advice is enough: no mask is loaded, trained or found."""
    assert '`model.roi_head.mask_head=None`' in PAGE
    assert '`train_dataloader.dataset.pipeline=_base_.train_pipeline_boxes`' in PAGE
    text = CONFIG.replace('mask_head=dict(num_classes=2)', 'mask_head=None')
    text = text.replace("ann_file='train.json'", 'pipeline=_base_.train_pipeline_boxes, ann_file=')
    text = text.replace('ann_file=,', "ann_file='train.json',")
    text = text.replace("ann_file='data/", "metric='bbox', ann_file='data/")
    Path('boxes.py').write_text(text)
    config = Config.fromfile('boxes.py')
    assert config.val_evaluator.metric == config.test_evaluator.metric == 'bbox'
    assert config.model.roi_head.mask_head is None
    steps = config.train_dataloader.dataset.pipeline
    assert not any(step.get('with_mask') for step in steps)
    from mmengine.registry import DefaultScope

    from evamm.registry import DATASETS

    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(config.train_dataloader.dataset)
        sample = dataset[0]['data_samples'].gt_instances
    assert 'masks' not in sample and len(sample.bboxes) > 0
    with torch.device('meta'):
        model = evamm.get_model(config, device='meta')
    assert not model.roi_head.with_mask


def test_inference_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a small copy of the released model, as it is printed."""
    first, second = BLOCKS[:2]
    (name,) = re.findall(r"DetInferencer\('([^']+)'\)", first)
    entry = find_entry(name)
    monkeypatch.setenv('EVAMM_HOME', str(tmp_path))
    (tmp_path / 'demo').symlink_to(ROOT / 'demo')
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(entry.config)
    shrink(config)
    config.model.test_cfg.rcnn.score_thr = 0.005  # below the scores of random weights
    cached = cache_path(entry.weights)
    cached.parent.mkdir(parents=True)
    write_checkpoint({'model': evamm.get_model(config).state_dict()}, cached)
    monkeypatch.setattr(Config, 'fromfile', staticmethod(lambda path: config))
    scope: dict = {}
    exec(first.replace("'demo/cat.JPEG')", "'demo/cat.JPEG', score_thr=0.0)"), scope)
    assert len(scope['result']['names']) == len(scope['result']['masks']) > 0
    exec(second, scope)
    assert sorted(path.name for path in Path('out/vis').iterdir()) == ['bird.png', 'cat.png']
    content = json.loads(Path('out/predictions.json').read_text())
    assert len(content['images']) == 2 and len(content['categories']) == 80
    with Image.open('out/vis/cat.png') as picture:
        assert np.asarray(picture).shape == (300, 451, 3)


def test_what_differs_from_the_inferencer_of_mmdet() -> None:
    """Every argument that is missing here, or has another default, stands on the page."""
    from mmdet.apis import DetInferencer

    listed = re.search(r'What differs:\n\n(.*?)\n\n', PAGE, re.DOTALL)[1]
    words = set(re.findall(r'`(\w+)', listed))
    for name in ('__init__', '__call__'):
        ours = signature(getattr(evamm.DetInferencer, name)).parameters
        theirs = signature(getattr(DetInferencer, name)).parameters
        differ = {
            key
            for key, parameter in theirs.items()
            if key not in ours or (ours[key].default or None) != (parameter.default or None)
        }
        assert differ - {'self', 'model', 'kwargs'} <= words, name
    for key in ('draw_pred', 'palette', 'scope', 'no_save_pred', 'show_progress'):
        assert key in words


def test_the_parts_in_a_config_of_mmdet() -> None:
    block = next(block for block in BLOCKS if block.startswith('backbone = dict('))
    scope: dict = {}
    exec(block, scope)
    from evamm.registry import MODELS

    assert scope['backbone'].pop('init_cfg')['type'] == 'Pretrained'
    with torch.device('meta'):
        trunk = MODELS.build(scope['backbone'])
        maps = MODELS.build(scope['neck'])(trunk(torch.empty(1, 3, 1024, 1024)))
    assert [tuple(level.shape[1:]) for level in maps] == [
        (256, side, side) for side in (256, 128, 64, 32, 16)
    ]


def test_a_training_can_validate_as_the_official_ones() -> None:
    """With the options of the page: plain NMS, at most 100 or 300 boxes per image."""
    page = (ROOT / 'docs/en/detection_recipes.md').read_text()
    (options,) = re.findall(r'`(--cfg-options model.test_cfg[^`]*)`', page)
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    chosen = parser.parse_args(options.split()).cfg_options
    for name in ('base_p16_1536_16xb8_coco', 'large_p16_1536_16xb8_lvis'):
        config = Config.fromfile(ROOT / f'configs/eva02_det/cascade_mask_rcnn_eva02_{name}.py')
        assert config.model.test_cfg.rcnn.soft_nms
        config.merge_from_dict(chosen)
        head = evamm.get_model(config, device='meta').roi_head
        head.check_test_cfg(head.test_cfg)
        assert head.test_cfg.soft_nms is None and head.test_cfg.maskness_thr is None
        assert head.test_cfg.max_per_img == (300 if 'lvis' in name else 100)


def test_the_table_of_tests() -> None:
    """Every row holds for the configs that it names."""
    rows = re.findall(r'^\| (COCO|LVIS)(.*?)\| (.*?) \| (.*?) \| (.*?) \| (.*?)\|', PAGE, re.M)
    found = {}
    for data, rest, *cells in rows:
        found[data + rest.rstrip()] = [cell.strip() for cell in cells]
    patterns = {
        'COCO, EVA-02 at 1024': 'eva02_det/*1024*coco.py',
        'COCO at 1536 (EVA-01: `_det`)': 'eva*_det/*1536*coco*.py',
        'COCO at 1536, `_seg`': 'eva*_det/*1536*_seg.py',
        'LVIS, EVA-02 at 1024': 'eva02_det/*1024*lvis.py',
        'LVIS, EVA-02 at 1536': 'eva02_det/*1536*lvis.py',
        'LVIS, EVA-01 at 1536': 'eva_det/*1536*lvis.py',
    }
    assert set(found) == set(patterns)
    for name, pattern in patterns.items():
        paths = [
            path
            for path in (ROOT / 'configs').glob(pattern)
            if path.stem.endswith('_seg') == ('_seg' in name)
        ]
        assert paths, name
        for path in paths:
            settings = Config.fromfile(path).model.test_cfg.rcnn
            soft = settings.get('soft_nms')
            threshold = settings.score_thr
            if soft and soft.get('score_thr') is not None:
                threshold = soft.score_thr
            row = [
                f'soft-NMS {soft.iou_threshold}' if soft else f'NMS {settings.nms.iou_threshold}',
                f'{threshold:g}',
                'all that stay' if soft else str(settings.max_per_img),
                f'{settings.get("maskness_thr") or ""}',
            ]
            assert row == found[name], path.name
