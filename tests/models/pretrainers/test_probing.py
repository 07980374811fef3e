"""kNN and linear probe while a model is pre-trained, by the hooks of a config."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from evamm.engine import EVARunner
from evamm.models import EVAPretrainer, MAEPretrainer

ARCH = dict(embed_dims=32, depth=2, num_heads=2, rope=False, ffn='mlp', qkv_bias='qkv')
TRUNK = dict(type='evamm.EVAViT', arch=ARCH, img_size=32, patch_size=8)
TEACHER = dict(
    type='evamm.CLIPTeacher',
    arch=ARCH,
    embed_dims=12,
    img_size=32,
    patch_size=8,
    allow_random=True,
)


@pytest.mark.parametrize('kind', [EVAPretrainer, MAEPretrainer])
def test_pooled_features_are_the_mean_of_the_patches(kind):
    more = {}
    if kind is MAEPretrainer:
        more = dict(decoder=dict(embed_dims=16, depth=1, num_heads=2))
    model = kind(TRUNK, teacher=TEACHER, **more)
    model.init_weights()
    model.eval()
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        tokens = model(images)[-1]
        assert tokens.shape == (3, 17, 32)
        expected = tokens[:, 1:].sum(dim=1) / 16
        torch.testing.assert_close(model.pooled_features(images), expected)
        torch.testing.assert_close(model.pooled_features([images, images[:, :, :8]]), expected)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Dark and bright noise; a linear probe of any features tells them apart."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name, level in (('dark', 60), ('bright', 190)):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(8):
                pixels = rng.normal(level, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f'{index}.png')
    return tmp_path


def run(pictures: Path, name: str, hooks: list) -> tuple[dict, list[float]]:
    """Weights at the end, and what the hooks wrote: names with their values."""
    load, pack = dict(type='evamm.LoadImageFromFile'), dict(type='evamm.PackMIMInputs')
    mask = dict(type='evamm.BlockMasking', input_size=4, num_masking_patches=6, min_num_patches=2)
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(pictures / name),
            experiment_name=name,
            model=dict(
                type='evamm.EVAPretrainer',
                backbone=TRUNK,
                teacher=TEACHER,
                data_preprocessor=dict(mean=[127.5] * 3, std=[60.0] * 3, to_rgb=True),
            ),
            train_dataloader=dict(
                batch_size=8,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
                collate_fn=dict(type='default_collate'),
                dataset=dict(
                    type='evamm.ImageList',
                    data_root=str(pictures),
                    data_prefix='train',
                    pipeline=[load, mask, pack],
                ),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(type='evamm.AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
            default_hooks=dict(checkpoint=None),
            custom_hooks=hooks,
            randomness=dict(seed=3),
            log_level='WARNING',
        )
    )
    runner = EVARunner.from_cfg(cfg)
    runner.train()
    found = [
        json.loads(line)
        for path in Path(runner.log_dir).glob('vis_data/*.json')
        for line in path.read_text().splitlines()
        if 'top1' in line
    ]
    return {key: value.clone() for key, value in runner.model.state_dict().items()}, found


def test_hooks_measure_a_pre_training_run_and_leave_it_as_it_was(pictures):
    loaders = {}
    for key, split in (('train_dataloader', 'train'), ('test_dataloader', 'val')):
        pipeline = [dict(type='evamm.LoadImageFromFile'), dict(type='evamm.PackInputs')]
        dataset = dict(type='CustomDataset', data_root=str(pictures / split), pipeline=pipeline)
        loaders[key] = dict(batch_size=5, dataset=dataset)
    hooks = [
        dict(type='evamm.KNNHook', k=3, **loaders),
        dict(type='evamm.LinearProbeHook', interval=2, **loaders),
    ]
    weights, found = run(pictures, 'probed', hooks)
    values = {name: [r[name] for r in found if name in r] for name in ('knn/top1', 'linear/top1')}
    assert values == {'knn/top1': [100.0, 100.0], 'linear/top1': [100.0]}
    plain, nothing = run(pictures, 'plain', [])
    assert not nothing
    for name, value in plain.items():
        assert torch.equal(value, weights[name]), name
