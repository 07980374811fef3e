"""A detector trained, tested and used as a user would, on scenes of shapes that overlap."""

import json
from pathlib import Path

import numpy as np
import pytest

from evamm.datasets.digits import detection, write_detection

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'digits'
NAME = 'cascade_mask_rcnn_eva02_tiny_digits'
KEYS = ('bbox_mAP', 'bbox_mAP_50', 'segm_mAP', 'segm_mAP_50')
STEPS = 36


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """A disc or a bar in place of handwriting: two classes that are learned in seconds."""
    rows, columns = np.mgrid[:28, :28] - 13.5
    glyphs = np.zeros((40, 28, 28), np.uint8)
    glyphs[::2, np.hypot(rows, columns) < 9] = 255
    glyphs[1::2, 5:23, 11:17] = 255
    monkeypatch.setattr(detection, 'load_digits', lambda: (glyphs, np.arange(40) % 2))
    monkeypatch.setattr(detection, 'MAX_DIGITS', 2)
    write_detection(tmp_path / 'data/digits', train_scenes=32, val_scenes=8, test_scenes=8)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_resume_test_and_choose_a_preset(call, shapes):
    loaders = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    options = ['--cfg-options', 'model.backbone.init_cfg=None', 'model.backbone.arch.depth=2']
    options += ['model.backbone.window_blocks=[0]', 'model.train_cfg.rcnn.0.sampler.num=16']
    options += ['model.test_cfg.rpn.max_per_img=40']
    options += ['model.data_preprocessor.pad_size=96', 'model.backbone.img_size=96']
    sizes = dict(zip(loaders, (2, 1, 1), strict=True))  # place of the transform with a size
    options += [f'{loader}.dataset.pipeline.{at}.size=96' for loader, at in sizes.items()]
    options += [f'{loader}.{key}' for loader in loaders
                for key in ('num_workers=0', 'persistent_workers=False')]  # fmt: skip
    train = [*options, 'train_dataloader.batch_size=4', 'optim_wrapper.optimizer.lr=2e-3']
    train += ['param_scheduler.warmup_steps=5', f'param_scheduler.milestones=[{STEPS - 8}]']
    train += ['default_hooks.logger.interval=1', f'train_cfg.val_interval={STEPS}']
    train += [f'default_hooks.checkpoint.interval={STEPS // 2}', 'log_processor.window_size=1']
    plain = CONFIGS / f'{NAME}.py'
    assert call('train', plain, *train, f'train_cfg.max_iters={STEPS // 2}') == 0
    assert call('train', plain, '--resume', *train, f'train_cfg.max_iters={STEPS}') == 0

    work_dir = shapes / 'work_dirs' / NAME
    records = [
        json.loads(line)
        for path in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in path.read_text().splitlines()
    ]
    losses = [record['loss'] for record in records if 'loss' in record]
    assert len(losses) == STEPS and np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    trained = {key: records[-1][f'coco/{key}'] for key in KEYS}

    # The scenes that were validated on, in place of those to report.
    val = 'annotations/instances_val.json'
    on_val = [f'test_dataloader.dataset.ann_file={val}']
    on_val += ['test_dataloader.dataset.data_prefix.img=val/']
    on_val += [f'test_evaluator.ann_file=data/digits/detection/{val}']

    def test(config: Path) -> dict:
        out = shapes / 'metrics.json'
        checkpoint = work_dir / f'iter_{STEPS}.pth'
        command = [config, checkpoint, '--out', out, '--out-item', 'metrics', *options, *on_val]
        assert call('test', *command) == 0
        metrics = json.loads(out.read_text())
        return {key: metrics[f'coco/{key}'] for key in KEYS}

    assert test(plain) == trained
    # So few steps from scratch: something is found.
    assert trained['bbox_mAP_50'] > 0.1 and trained['segm_mAP_50'] > 0.1
    preset = test(CONFIGS / f'{NAME}_seg.py')
    # Other scores in another order, of the same boxes.
    assert preset != trained and preset['bbox_mAP_50'] > 0
