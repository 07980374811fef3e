"""Image-text and linear-probe recipes do run: data, losses, schedules and tests fit together.

The towers and the data are made small, everything else is the recipe.
"""

import io
import tarfile

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from evamm.engine.errors import ConfigError
from evamm.engine.runner.fit import check_fit
from evamm.registry import RUNNERS

from .common import CONFIGS

VISION = dict(embed_dims=32, depth=2, num_heads=2, ffn_norm=True, attn_norm=True)
COLOURS = dict(red=(220, 30, 30), green=(30, 200, 30), blue=(30, 30, 220), grey=(128, 128, 128))


def picture(colour):
    noise = np.random.default_rng(sum(colour)).integers(-20, 20, (40, 50, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture
def data(tmp_path):
    """Two sources with shards of eight pairs, and one test image of each colour."""
    for source in ('laion', 'coyo'):
        (tmp_path / source).mkdir()
        with tarfile.open(tmp_path / source / '00000.tar', 'w') as tar:
            for index in range(8):
                name, colour = list(COLOURS.items())[index % 4]
                image = io.BytesIO()
                picture(colour).save(image, 'JPEG')
                text = f'a picture of something {name}'.encode()
                for ending, content in (('jpg', image.getvalue()), ('txt', text)):
                    member = tarfile.TarInfo(f'{index:05d}.{ending}')
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    for split in ('train', 'val'):
        (tmp_path / 'imagenet' / split / 'n0').mkdir(parents=True)
        lines = []
        for label, colour in enumerate(COLOURS.values()):
            for copy in range(2):
                name = f'n0/{label}{copy}.JPEG'
                picture(colour).save(tmp_path / 'imagenet' / split / name)
                lines.append(f'{name} {label}')
        (tmp_path / 'imagenet' / 'meta').mkdir(exist_ok=True)
        (tmp_path / 'imagenet' / 'meta' / f'{split}.txt').write_text('\n'.join(lines))
    return tmp_path


def build(cfg, data):
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(data / 'imagenet')
        loader.dataset.metainfo = dict(classes=list(COLOURS))
    cfg.work_dir, cfg.log_level = str(data / 'work'), 'WARNING'
    cfg.env_cfg.mp_cfg.mp_start_method = 'fork'
    return RUNNERS.build(cfg)


def run(cfg, data):
    runner = build(cfg, data)
    runner.model.init_weights()
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    return runner, {name for name in before if not torch.equal(before[name], after[name])}


def small_pair(data):
    """A recipe in parts of three pairs, with all eight in the loss."""
    cfg = Config.fromfile(CONFIGS / 'eva_clip' / 'eva01_clip_giant_plus_p14_112xb1024_merged2b.py')
    cfg.model.backbone.update(arch=VISION, init_cfg=None)
    cfg.model.text.update(arch=dict(width=16, depth=1, num_heads=2), init_cfg=None)
    cfg.model.embed_dims = 16
    cfg.model.train_cfg = dict(micro_batch_size=3)
    cfg.model.test_cfg.update(classes=list(COLOURS), templates='simple', cache=False)
    for source, name in zip(cfg.train_dataloader.dataset.datasets, ('laion', 'coyo'), strict=True):
        source.update(data_root=str(data / name), shards='*.tar', cache_dir=str(data / 'cache'))
    cfg.train_dataloader.batch_size = 8
    cfg.val_evaluator.topk = cfg.test_evaluator.topk = (1,)
    cfg.train_cfg.update(max_iters=4, val_interval=2)
    cfg.param_scheduler.warmup = 2
    cfg.default_hooks.checkpoint.interval = 2
    cfg.default_hooks.logger.interval = 1
    return cfg


def test_image_text_recipe_runs(data, monkeypatch):
    monkeypatch.setenv('EVAMM_HOME', str(data / 'cache'))
    torch.manual_seed(0)
    cfg = small_pair(data)
    runner, moved = run(cfg, data)
    # Every tensor is trained, in both towers and between them.
    assert moved == set(runner.model.state_dict())
    groups = runner.optim_wrapper.optimizer.param_groups
    names = [group['group_name'] for group in groups]
    assert names[0] == 'visual_layer_0_decay' and names[-1] == 'other_no_decay'
    rates = {group['group_name']: group['initial_lr'] for group in groups}
    assert rates['other_no_decay'] == 5e-4
    assert rates['visual_layer_3_decay'] == 4e-4 and rates['text_layer_2_decay'] == 4e-5
    scalars = runner.message_hub.log_scalars
    assert {'train/loss', 'train/logit_scale', 'train/grad_norm', 'val/accuracy/top1'} <= set(
        scalars
    )
    assert len(scalars['val/accuracy/top1'].data[0]) == 2
    assert (data / 'work' / 'iter_4.pth').is_file()


def test_names_of_other_classes_are_refused_before_the_first_step(data, monkeypatch):
    """Not at the first validation, hours later."""
    monkeypatch.setenv('EVAMM_HOME', str(data / 'cache'))
    cfg = small_pair(data)
    cfg.model.test_cfg.classes = ['red', 'green', 'blue']
    cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = 10**6
    with pytest.raises(ConfigError, match=r'test_cfg.classes names 3 classes, .* has 4 \(red'):
        check_fit(build(cfg, data), ('train', 'val'))


def test_linear_probe_recipe_runs(data):
    torch.manual_seed(0)
    name = 'eva_giant_p14_clip_linear_probe_8xb400_in1k_224px'
    cfg = Config.fromfile(CONFIGS / 'eva' / f'{name}.py')
    cfg.model.backbone.update(arch=VISION, frozen_stages=2, init_cfg=None)
    cfg.model.head.update(in_channels=32, num_classes=4)
    cfg.data_preprocessor.num_classes = 4
    cfg.train_dataloader.dataset.update(
        data_root=str(data / 'imagenet'), metainfo=dict(classes=list(COLOURS))
    )
    cfg.train_dataloader.batch_size = 4
    cfg.val_evaluator.topk = cfg.test_evaluator.topk = (1,)
    cfg.optim_wrapper.accumulative_counts = 2
    cfg.train_cfg.max_epochs = 3
    cfg.param_scheduler.warmup = 1
    runner, moved = run(cfg, data)
    assert moved == {
        'head.fc.weight',
        'head.fc.bias',
        'head.bn.running_mean',
        'head.bn.running_var',
        'head.bn.num_batches_tracked',
    }
    top1 = runner.message_hub.log_scalars['val/accuracy/top1'].data[0]
    assert len(top1) == 3
