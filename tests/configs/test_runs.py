"""Recipes do run: their schedules, losses and hooks fit together. The trunk is made small."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from evamm.registry import RUNNERS

from .common import CONFIGS

SMALL = dict(embed_dims=32, depth=2, num_heads=2, ffn='mlp', rope=False)


@pytest.fixture
def images(tmp_path):
    """Eight images for training and two for validation, listed as mmpretrain lists ImageNet."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 2)):
        lines = []
        (tmp_path / split / 'n0').mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / 'n0' / f'{index}.JPEG')
            lines.append(f'n0/{index}.JPEG {index}')
        (tmp_path / 'meta').mkdir(exist_ok=True)
        (tmp_path / 'meta' / f'{split}.txt').write_text('\n'.join(lines))
    return tmp_path


def shrink(cfg: Config, root) -> Config:
    """A few steps of the recipe on the images: 4 iterations and 2 optimizer steps per epoch."""
    cfg.model.backbone.update(arch=SMALL, init_cfg=None)
    cfg.model.head.in_channels = SMALL['embed_dims']
    cfg.optim_wrapper.accumulative_counts = 2
    cfg.train_cfg.max_epochs, cfg.param_scheduler.warmup = 2, 1
    cfg.train_dataloader.batch_size = 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        if loader:
            loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
            loader.dataset.data_root = str(root)
    cfg.work_dir = str(root / 'work')
    cfg.log_level = 'WARNING'
    return cfg


@pytest.mark.parametrize(
    ('name', 'validated_with_ema'),
    [('eva/eva_giant_p14_8xb16_in21k', False), ('eva/eva_large_p14_8xb16_in1k_196px', True)],
)
def test_recipe_runs(name, validated_with_ema, images):
    torch.manual_seed(0)
    cfg = shrink(Config.fromfile(CONFIGS / f'{name}.py'), images)
    runner = RUNNERS.build(cfg)
    runner.model.init_weights()
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    runner.train()
    after = runner.model.state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    # Everything is trained but the patch projection, which official fine-tuning leaves alone.
    assert set(before) - moved == {
        'backbone.patch_embed.proj.weight',
        'backbone.patch_embed.proj.bias',
    }
    saved = torch.load(images / 'work' / 'epoch_2.pth', weights_only=True)
    assert ('ema_state_dict' in saved) == validated_with_ema
    scalars = runner.message_hub.log_scalars
    assert ('val/accuracy/top1' in scalars) == validated_with_ema
