"""Pictures of pre-training, as a user asks for them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from evamm.apis.batches import take_batch
from evamm.apis.pretraining import predict_masked
from evamm.checkpoints import write_checkpoint
from evamm.registry import MODELS

CONFIG = """
default_scope = 'mmpretrain'
arch = dict(embed_dims=32, depth=2, num_heads=2)
model = dict(
    type='evamm.EVAPretrainer',
    backbone=dict(type='evamm.EVAViT', arch=arch, img_size=32, patch_size=8),
    teacher=dict(
        type='evamm.CLIPTeacher', arch=arch, embed_dims=12, img_size=32, patch_size=8,
        init_cfg=dict(type='Pretrained', checkpoint='teacher.pth')))
data_preprocessor = dict(
    type='SelfSupDataPreprocessor', mean=[122.7709383, 116.7460125, 104.09373615],
    std=[68.5005327, 66.6321579, 70.32316305], to_rgb=True)
pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.SeededCrops', transforms=[
        dict(type='evamm.RandomResizedCrop', scale=32, crop_ratio_range=(0.9, 1.0))]),
    dict(type='evamm.BlockMasking', input_size=4, num_masking_patches=6, min_num_patches=2),
    dict(type='evamm.LoadTeacherFeatures'),
    dict(type='evamm.PackMIMInputs')]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='evamm.ImageList', data_root='pictures', pipeline=pipeline))
"""
COLOURS = {'red': (250, 10, 20), 'green': (20, 240, 30), 'blue': (30, 20, 230)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config, images of one colour each, a teacher and a student that nobody has trained."""
    (tmp_path / 'pictures').mkdir()
    for name, colour in COLOURS.items():
        Image.new('RGB', (40, 40), colour).save(tmp_path / 'pictures' / f'{name}.png')
    (tmp_path / 'config.py').write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile('config.py')
    torch.manual_seed(0)
    cfg.model.teacher.update(init_cfg=None, allow_random=True)
    model = MODELS.build(cfg.model)
    model.init_weights()
    for param in [*model.parameters(), *model.teacher.parameters()]:
        torch.nn.init.normal_(param, std=0.3)
    write_checkpoint(model.state_dict(), tmp_path / 'student.pth')
    write_checkpoint(model.teacher.state_dict(), tmp_path / 'teacher.pth')
    return tmp_path


def test_rows_are_what_the_model_computes(place):
    cfg = Config.fromfile('config.py')
    rows = predict_masked(cfg, 'student.pth', count=3)
    assert {row.name for row in rows} == {f'{name}.png' for name in COLOURS}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build({'data_preprocessor': cfg.data_preprocessor, **cfg.model})
    model.init_weights()
    model.load_state_dict(torch.load('student.pth', weights_only=True))
    model.eval()
    for row in rows:
        colour = COLOURS[row.name[:-4]]
        assert (np.abs(row.image.astype(int) - colour) <= 1).all()  # RGB, normalisation undone
        assert 1 <= row.mask.sum() <= 6
        pixels = torch.tensor(row.image[..., ::-1].copy()).permute(2, 0, 1)[None]
        images = model.data_preprocessor({'inputs': pixels, 'data_samples': None})['inputs']
        mask = torch.from_numpy(row.mask.reshape(1, -1))
        with torch.no_grad():
            found = model.lm_head(model.backbone(images, mask)[0][:, 1:][mask])
            wanted = model.teacher(images)[mask]
        expected = torch.nn.functional.cosine_similarity(found, wanted, dim=-1)
        np.testing.assert_allclose(row.cosines[row.mask], expected, atol=1e-4)


def test_other_models_are_refused(place):
    cfg = Config.fromfile('config.py')
    cfg.model = dict(type='ImageClassifier', backbone=cfg.model.backbone)
    cfg.data_preprocessor = dict(type='ClsDataPreprocessor')
    with pytest.raises(ValueError, match='predicts no masked patches'):
        predict_masked(cfg)


def test_features_of_a_cache_are_shown_for_every_patch(call, place):
    live = predict_masked(Config.fromfile('config.py'), 'student.pth', count=3)
    assert call('cache_teacher', 'config.py', '--out', 'features', '--workers', 0) == 0
    cfg = Config.fromfile('config.py')
    cfg.model.update(teacher=None, head=dict(out_channels=12))
    with pytest.raises(ValueError, match='there is no teacher and the samples have no targets'):
        predict_masked(cfg, 'student.pth')
    cfg.train_dataloader.dataset.pipeline[3].cache = 'features'
    cached = predict_masked(cfg, 'student.pth', count=3)
    for one, other in zip(live, cached, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_allclose(one.cosines, other.cosines, atol=2e-3)
        assert np.abs(one.target.astype(int) - other.target).max() <= 4
    assert 'masked_only' not in cfg.train_dataloader.dataset.pipeline[3]  # the caller's is his


def test_tools_write_sheets_and_name_mistakes(tool, place, capsys, monkeypatch):
    def run(name: str, *args: object) -> int:
        monkeypatch.setattr('sys.argv', [name, *map(str, args)])
        return tool(f'visualization/{name}').main()

    assert run('mim', 'config.py', 'student.pth', '--count', 2) == 0
    assert '2 images, mean cosine of' in capsys.readouterr().out
    with Image.open('outputs/mim.png') as sheet:
        assert sheet.width > 5 * 224
    assert run('browse_dataset', 'config.py', '--count', 3) == 0
    batch = take_batch(Config.fromfile('config.py'), count=3)
    assert all(caption.endswith(' of 16 masked') for caption in batch.captions)
    for picture in batch.images:
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) >= 2  # covered and not

    def fails(expected: str, *options: str) -> None:
        capsys.readouterr()
        assert run('mim', 'config.py', *options) == 1
        assert expected in capsys.readouterr().err

    fails('absent.pth', 'absent.pth')
    fails('has no val_dataloader', '--split', 'val')
    change = ('--cfg-options',)
    fails('has no weights', *change, 'model.teacher.init_cfg=None')
    fails('nowhere does not exist', *change, 'train_dataloader.dataset.data_root=nowhere')
    fails('gone does not exist', *change, 'train_dataloader.dataset.pipeline.3.cache=gone')
