"""The code in the documentation runs as it is printed there."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import evamm
from evamm.apis.batches import take_batch
from evamm.apis.model_index import find_entry
from evamm.checkpoints import write_checkpoint
from evamm.checkpoints.download import cache_path
from evamm.models.clip.predictors import build_predictor

ROOT = Path(__file__).resolve().parents[2]
FLOWERS = ('daisy', 'dandelion', 'rose', 'sunflower', 'tulip')


def python_blocks(page: str) -> list[str]:
    return re.findall(r'```python\n(.*?)```', (ROOT / 'docs/en' / page).read_text(), re.DOTALL)


def test_inference_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights in the cache, in the place of the download."""
    name = 'eva02-tiny-p14_in21k-pre_3rdparty_in1k'
    monkeypatch.setenv('EVAMM_HOME', str(tmp_path))
    monkeypatch.chdir(ROOT)
    cached = cache_path(find_entry(name).weights)
    cached.parent.mkdir(parents=True)
    write_checkpoint({'model': evamm.get_model(name).state_dict()}, cached)
    blocks = python_blocks('inference.md')
    assert len(blocks) == 7
    scope: dict = {}
    for block in blocks:
        exec(block, scope)
    # The shapes that the page promises
    assert scope['vector'].shape == (1, 192)
    assert scope['tokens'].shape == (1, 1025, 192)
    assert [tuple(map_.shape) for map_ in scope['maps']] == [(1, 192, 32, 32)] * 3
    assert scope['image'].shape == (3, 336, 336)
    assert {Path(result['img_path']).name for result in scope['results']} == {
        'bird.JPEG',
        'cat.JPEG',
    }


def test_zero_shot_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is printed, on a copy of the released model with small towers."""
    name = 'eva02-clip-b-p16_3rdparty_merged2b-s8b'
    monkeypatch.setenv('EVAMM_HOME', str(tmp_path))
    (tmp_path / 'demo').symlink_to(ROOT / 'demo')
    monkeypatch.chdir(tmp_path)
    small = dict(
        backbone=dict(arch=dict(embed_dims=32, depth=2, num_heads=2)),
        text=dict(arch=dict(width=32, depth=2, num_heads=2)),
    )
    config = Config.fromfile(find_entry(name).config)
    for part in small:
        config.model[part].pop('arch')
    config.merge_from_dict({'model': small})
    torch.manual_seed(0)
    model = evamm.get_model(config)
    torch.nn.init.normal_(model.text.token_embedding.weight)
    write_checkpoint(model.state_dict(), tmp_path / 'weights.pth')
    build = evamm.get_model

    def get_small(wanted: str, pretrained: bool) -> torch.nn.Module:
        assert (wanted, pretrained) == (name, True)
        return build(config, tmp_path / 'weights.pth')

    monkeypatch.setattr(evamm, 'get_model', get_small, raising=False)
    *blocks, classes, recall = python_blocks('zero_shot.md')
    assert len(blocks) == 4
    scope: dict = {}
    for block in blocks:
        exec(block, scope)
    assert {result['pred_class'] for result in scope['results']} <= {
        'a photo of a cat',
        'a photo of a bird',
    }
    assert scope['images'].shape == (2, 512)
    assert scope['texts'].shape == (3, 512)
    assert scope['cosines'].shape == (2, 3)
    assert sorted(path.name for path in Path('out').iterdir()) == [
        'bird.png',
        'cat.png',
        'gallery.png',
    ]
    for block in (classes, recall):
        (tmp_path / 'settings.py').write_text(block)
        settings = Config.fromfile(tmp_path / 'settings.py')
        assert build_predictor(settings.model.test_cfg) is not None
    base = Config.fromfile(ROOT / 'configs/_base_/datasets/flickr30k_retrieval.py')
    assert settings.test_evaluator.to_dict() == base.test_evaluator.to_dict()


@pytest.fixture
def flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders that the page describes, and its config, in a folder laid out like a clone."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs', target_is_directory=True)
    for split in ('train', 'val'):
        for number, name in enumerate(FLOWERS):
            folder = tmp_path / 'data/flowers' / split / name
            folder.mkdir(parents=True)
            for index in range(2):
                colour = np.full((60, 80, 3), (50 * number, 100, 100 * index), np.uint8)
                Image.fromarray(colour).save(folder / f'{index}.jpg')
    monkeypatch.chdir(tmp_path)
    (block,) = python_blocks('custom_dataset.md')
    assert len(block.strip().splitlines()) == 10  # ten lines are promised
    (tmp_path / 'flowers.py').write_text(block)
    return tmp_path


def shrink(config: Config) -> None:
    """A trunk and batches that a test can afford; everything else stays as it is."""
    config.model.backbone.arch = dict(embed_dims=32, depth=2, num_heads=2)
    config.merge_from_dict(
        {
            'model.head.in_channels': 32,
            'optim_wrapper.accumulative_counts': 1,
            'train_dataloader': dict(batch_size=5, num_workers=0, persistent_workers=False),
            'val_dataloader': dict(num_workers=0, persistent_workers=False),
        }
    )


def test_own_data_set(flowers: Path) -> None:
    """Its config trains from a 1000-class checkpoint, and its model predicts its classes."""
    from evamm.engine.runner import launch

    config = Config.fromfile('flowers.py')
    shrink(config)
    start = evamm.get_model(config, num_classes=1000)
    write_checkpoint(start.state_dict(), 'start.pth')
    config.model.backbone.pop('init_cfg')
    config.merge_from_dict(
        {
            'load_from': 'start.pth',
            'work_dir': 'run',
            'train_cfg.max_epochs': 1,
            'param_scheduler.warmup': 0,
            'launcher': 'none',
        }
    )
    for loader in ('train_dataloader', 'val_dataloader'):
        config[loader].pin_memory = False
    with pytest.warns(UserWarning, match='head'):
        launch.build_runner(config).train()
    result = evamm.inference_model(
        config, flowers / 'data/flowers/val/rose/0.jpg', pretrained='run/epoch_1.pth'
    )
    assert result['pred_class'] == FLOWERS[result['pred_label']]
    assert result['pred_scores'].shape == (5,)


def test_labels_from_a_list_instead_of_folders(flowers: Path) -> None:
    root = flowers / 'data/flowers'
    for index, name in enumerate(FLOWERS):
        (root / 'train' / name / '0.jpg').rename(root / 'train' / f'img_{index}.jpg')
        shutil.rmtree(root / 'train' / name)
    (root / 'meta').mkdir()
    (root / 'meta/train.txt').write_text(
        ''.join(f'img_{index}.jpg {4 - index}\n' for index in range(5))
    )
    batch = take_batch(Config.fromfile('flowers.py'), 'train', 5)
    assert sorted(batch.captions) == sorted(FLOWERS)


def test_fewer_than_five_classes_need_another_metric(flowers: Path) -> None:
    """The page's advice is needed, and is enough."""
    from mmpretrain.evaluation import Accuracy

    text = (ROOT / 'docs/en/custom_dataset.md').read_text()
    assert '`val_evaluator = dict(topk=(1,))`' in text
    with (flowers / 'flowers.py').open('a') as file:
        file.write('val_evaluator = dict(topk=(1,))\n')
    topk = tuple(Config.fromfile('flowers.py').val_evaluator.topk)
    scores, labels = torch.eye(3), torch.arange(3)
    assert Accuracy.calculate(scores, labels, topk=topk)[0][0].item() == 100
    with pytest.raises(ValueError, match='Top-5 accuracy is unavailable'):
        Accuracy.calculate(scores, labels, topk=(1, 5))
