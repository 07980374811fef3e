"""An image-text pair trained and tested as a user would, on digit scenes with captions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evamm.datasets.digits import captions, write_captions

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'digits'
OPTIONS = [
    option
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    for option in (f'{loader}.num_workers=0', f'{loader}.persistent_workers=False')
] + ['model.backbone.arch.depth=1', 'model.text.arch.depth=1']


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """Discs and bars in place of handwriting: two classes that are learned in seconds."""
    glyphs = np.zeros((40, 28, 28), np.uint8)
    glyphs[::2, 5:23, 5:23] = 255
    glyphs[1::2, 5:23, 12:16] = 255
    labels = np.arange(40) % 2
    monkeypatch.setattr(captions, 'load_digits', lambda: (glyphs, labels))
    monkeypatch.setattr(captions, 'TEST_SCENES', 12)
    draw = captions.draw_scene

    def draw_zero_or_one(rng, single=0.8):
        scene = draw(rng, single)
        return scene._replace(digits=tuple(digit % 2 for digit in scene.digits))

    monkeypatch.setattr(captions, 'draw_scene', draw_zero_or_one)
    write_captions(tmp_path / 'data/digits', shards=2, per_shard=64)
    monkeypatch.setenv('EVAMM_HOME', str(tmp_path / 'home'))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_resume_classify_and_retrieve(call, digits, capsys):
    config = CONFIGS / 'eva02_clip_tiny_digits.py'
    options = [*OPTIONS, 'train_dataloader.batch_size=32', 'param_scheduler.end=40']
    options += ['param_scheduler.warmup=5', 'train_cfg.val_interval=20']
    options += ['default_hooks.logger.interval=1', 'default_hooks.checkpoint.interval=20']
    first = [*options, 'train_cfg.max_iters=20']
    assert call('train', config, '--cfg-options', *first) == 0
    options += ['train_cfg.max_iters=40']
    assert call('train', config, '--resume', '--cfg-options', *options) == 0
    work_dir = digits / 'work_dirs' / config.stem
    records = [
        json.loads(line)
        for path in sorted(work_dir.glob('*/vis_data/scalars.json'))
        for line in path.read_text().splitlines()
    ]
    losses = [record['loss'] for record in records if 'loss' in record]
    assert len(losses) == 40 and losses[-1] < losses[0] - 0.5

    path = work_dir / 'iter_40.pth'
    capsys.readouterr()
    assert call('test', config, path, '--cfg-options', *OPTIONS) == 0
    accuracy = float(capsys.readouterr().out.partition('accuracy/top1: ')[2].split()[0])
    # Ten classes, of which the test has two.
    assert accuracy > 70

    retrieval = CONFIGS / 'eva02_clip_tiny_digits_retrieval.py'
    assert call('test', retrieval, path, '--cfg-options', *OPTIONS) == 0
    out = capsys.readouterr().out
    recall = float(out.partition('retrieval/image_to_text_R@10: ')[2].split()[0])
    assert 50 < recall <= 100

    # Nothing was damaged, and nothing of the user's own cache was touched.
    assert list((digits / 'home' / 'shards' / 'index').rglob('*.npz'))
    state = torch.load(path, weights_only=True)
    assert state['train_loop']['data_seed'] is not None
