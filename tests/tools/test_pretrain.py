"""Pre-training, from a teacher's checkpoint to the models that start from the result."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

import evamm
from evamm.checkpoints import load_checkpoint, read_checkpoint
from evamm.models import EVACLIP, EVAViT
from evamm.registry import MODELS

REPO = Path(__file__).resolve().parents[2]
CONFIG = REPO / 'configs/digits/eva02_mim_tiny_digits.py'
NO_WORKERS = [
    option
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    for option in (f'{loader}.num_workers=0', f'{loader}.persistent_workers=False')
]


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """Bright squares in the places of the digits, and a CLIP that nobody has trained."""
    rng = np.random.default_rng(0)
    lines = {}
    for split, count in (('train', 24), ('val', 8)):
        for index in range(count):
            pixels = np.zeros((28, 28, 3), np.uint8)
            row, column = rng.integers(0, 20, 2)
            pixels[row : row + 8, column : column + 8] = 255
            name = ('zero', 'one')[index % 2]
            path = tmp_path / f'data/digits/scene_classes/{split}/{name}/{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            lines.setdefault(split, []).append(f'{name}/{index}.png {index % 2}')
    meta = tmp_path / 'data/digits/scene_classes/meta'
    meta.mkdir()
    for split, content in lines.items():
        (meta / f'{split}.txt').write_text('\n'.join(content))
    torch.manual_seed(0)
    clip = build_clip()
    clip.init_weights()
    torch.nn.init.normal_(clip.head.weight)  # a new one is next to zero
    work_dir = tmp_path / 'work_dirs/eva02_clip_tiny_digits'
    work_dir.mkdir(parents=True)
    torch.save({'state_dict': clip.state_dict()}, work_dir / 'iter_3600.pth')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build_clip(checkpoint: Path | None = None) -> EVACLIP:
    """The CLIP that the config expects; its trunk, and that of the student."""
    backbone = dict(
        type='evamm.EVAViT',
        arch=dict(embed_dims=128, depth=4, num_heads=2),
        img_size=40,
        patch_size=8,
        out_type='cls_token',
    )
    if checkpoint is not None:
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=str(checkpoint))
    text = dict(
        type='evamm.CLIPTextTransformer',
        arch=dict(width=32, depth=1, num_heads=2),
        context_length=8,
        vocab_size=16,
    )
    return EVACLIP(backbone, text, 128)


def test_from_a_teacher_to_every_model(call, digits, capsys):
    options = [*NO_WORKERS, 'train_dataloader.batch_size=8', 'train_cfg.max_iters=18']
    options += ['train_cfg.val_interval=9', 'default_hooks.logger.interval=1']
    options += ['param_scheduler.warmup=6', 'default_hooks.checkpoint.interval=9']
    assert call('train', CONFIG, '--cfg-options', *options) == 0
    work_dir = digits / 'work_dirs/eva02_mim_tiny_digits'
    records = [
        json.loads(line)
        for line in next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    ]
    losses = [record['loss'] for record in records if 'loss' in record]
    cosines = [record['mim/cosine'] for record in records if 'mim/cosine' in record]
    assert len(losses) == 18 and len(cosines) == 2
    assert losses[-1] < losses[0] - 0.1 and cosines[1] > cosines[0]

    path = work_dir / 'iter_18.pth'
    state = read_checkpoint(path).state_dict
    assert {name.partition('.')[0] for name in state} == {'backbone', 'lm_head'}
    capsys.readouterr()
    assert call('test', CONFIG, path, '--cfg-options', *NO_WORKERS) == 0
    assert f'mim/cosine: {cosines[-1]:.4f}' in capsys.readouterr().out

    # Classification, by the path alone.
    tuned = REPO / 'configs/digits/eva02_tiny_digit_scenes.py'
    options = [*NO_WORKERS, 'train_dataloader.batch_size=8', 'train_cfg.max_iters=2']
    options += ['train_dataloader.dataset.ann_file=meta/train.txt', 'param_scheduler.warmup=1']
    options += ['model.backbone.init_cfg.type=Pretrained', 'default_hooks.checkpoint.interval=2']
    options += [f'model.backbone.init_cfg.checkpoint={path}']
    assert call('train', tuned, '--cfg-options', *options) == 0
    assert (digits / 'work_dirs/eva02_tiny_digit_scenes/iter_2.pth').is_file()
    log = next((digits / 'work_dirs/eva02_tiny_digit_scenes').glob('*/*.log')).read_text()
    assert f'Trunk from {path}' in log

    # Features, and the image tower of a second CLIP.
    trunk = EVAViT(dict(embed_dims=128, depth=4, num_heads=2), img_size=40, patch_size=8)
    report = load_checkpoint(trunk, path)
    assert {rule for _, rule, _ in report.dropped} == {'mim-extras'} and not report.missing
    clip = build_clip(path)
    clip.init_weights()
    assert torch.equal(clip.backbone.blocks[3].attn.qkv.weight, trunk.blocks[3].attn.qkv.weight)


def test_a_missing_teacher_is_named_before_anything_begins(call, digits, capsys):
    Path('work_dirs/eva02_clip_tiny_digits/iter_3600.pth').unlink()
    assert call('train', CONFIG, '--cfg-options', *NO_WORKERS) == 1
    error = capsys.readouterr().err
    assert 'model.teacher.init_cfg.checkpoint' in error and 'iter_3600.pth does not exist' in error


def test_a_model_is_opened_without_its_teacher(tmp_path, monkeypatch):
    """There is no teacher in this folder."""
    monkeypatch.chdir(tmp_path)
    model = evamm.get_model(str(CONFIG))
    assert not model.teacher.is_loaded
    assert model(torch.zeros(1, 3, 40, 40))[0].shape[0] == 1


@pytest.mark.parametrize('size', ['tiny', 'large'])
def test_released_pre_training_files_give_features(size, tmp_path):
    """A file as the authors leave it, for the headless config of the model's name."""
    cfg = Config.fromfile(REPO / f'configs/eva02/eva02_{size}_p14_headless.py')
    pretraining = Config.fromfile(
        next((REPO / 'configs/eva02').glob(f'eva02_{size}_p14_mim_*_in21k.py'))
    )
    arch = dict(embed_dims=64, depth=2, num_heads=1, ffn_norm=size == 'large')
    cfg.model.backbone.arch = pretraining.model.backbone.arch = arch
    pretraining.model.teacher = None
    pretraining.model.head.out_channels = 24
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(pretraining.model)
        features = MODELS.build(cfg.model)
    model.init_weights()
    torch.save({'module': model.state_dict()}, tmp_path / 'mim.pt')
    load_checkpoint(features, tmp_path / 'mim.pt', complete=True)
    images = torch.randn(2, 3, 224, 224)
    model.eval()
    features.eval()
    norm, model.backbone.norm = model.backbone.norm, torch.nn.Identity()
    with torch.no_grad():
        expected = norm(model(images)[0][:, 1:].mean(dim=1))
        (found,) = features.extract_feat(images)
    torch.testing.assert_close(found, expected)
