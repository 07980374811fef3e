"""Each pre-training config against the official recipe, number by number.

Sources: the commands in EVA-01/eva/README.md and EVA-02/asuka/README.md of
github.com/baaivision/EVA with the defaults of run_eva_pretraining.py and run_eva02_pretraining.py;
for EVA-L EVA-01/logs/pt; for `eva_mae_style` mmpretrain's configs/eva.
"""

import ast
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from PIL import Image

from evamm.datasets import ImageList
from evamm.engine.runner.preflight import DatasetNotFoundError, check_datasets
from evamm.engine.schedulers.warmup_cosine import warmup_cosine
from evamm.registry import DATASETS, PARAM_SCHEDULERS, RUNNERS

from .common import CONFIGS, FINAL, build_on_meta, load, name_of


@dataclass(frozen=True)
class Recipe:
    arch: str
    data: int  # member data sets
    epochs: int
    batch: int
    gpus: int
    lr: float
    warmup: int
    drop_path: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    teacher: str = 'evamm.CLIPTeacher'
    target: int = 1024
    patch_grad: float = 0.1  # --stop_grad_conv1
    head_init: str = 'xavier_normal'


OPENAI = dict(teacher='evamm.OpenCLIPTeacher', target=768, patch_grad=1.0, head_init='cut_normal')
# fmt: off
RECIPES = {
    'eva/eva_giant_p14_mim_128xb32_merged30m':
        Recipe('eva-giant', 6, 150, 4096, 128, 1e-3, 2, 0.1, **OPENAI),
    'eva02/eva02_tiny_p14_mim_40xb100_in21k':
        Recipe('eva02-tiny', 1, 240, 4000, 40, 3e-3, 1),
    'eva02/eva02_small_p14_mim_40xb100_in21k':
        Recipe('eva02-small', 1, 240, 4000, 40, 3e-3, 1),
    'eva02/eva02_base_p14_mim_32xb64_in21k':
        Recipe('eva02-base', 1, 150, 2048, 32, 1.5e-3, 1),
    'eva02/eva02_large_p14_mim_64xb32_in21k':
        Recipe('eva02-large', 1, 150, 2048, 64, 1.5e-3, 1, 0.1),
    'eva02/eva02_large_p14_mim_64xb32_merged38m':
        Recipe('eva02-large', 7, 56, 2048, 64, 1.5e-3, 1, 0.1),
    'eva/eva_large_p14_mae_in21k':
        Recipe('eva-large', 1, 150, 4096, 64, 2.4e-3, 2, betas=(0.9, 0.95), patch_grad=1.0,
               head_init='xavier_uniform'),
}
# fmt: on
EVA_L = 'eva/eva_large_p14_mae_in21k'
MAE_STYLE = 'eva_mae_style/eva_mae_style_vit_base_p16_16xb256_coslr_400e_in1k'


def members(cfg: Config) -> list:
    dataset = cfg.train_dataloader.dataset
    return list(dataset.datasets) if dataset.type == 'ConcatDataset' else [dataset]


def gpus_of(name: str) -> int:
    header = ast.get_docstring(ast.parse((CONFIGS / f'{name}.py').read_text(encoding='utf-8')))
    sum_of = r'^Total batch: (\d+) GPUs x (\d+) images x 1 accumulation = (\d+)\.$'
    gpus, images, total = map(int, re.search(sum_of, header, re.M).groups())
    assert gpus * images == total == load(CONFIGS / f'{name}.py').auto_scale_lr.base_batch_size
    nodes = gpus // 8
    assert f'on each of {nodes} machines of 8 GPUs: NNODES={nodes} NODE_RANK=$RANK' in header
    assert f'configs/{name}.py 8' in header
    assert re.search(r'^Reproduces: ', header, re.M) and re.search(r'^Expected: ', header, re.M)
    return gpus


def recipe_of(name: str) -> Recipe:
    cfg = load(CONFIGS / f'{name}.py')
    model = build_on_meta(cfg)
    head = model.lm_head if name != EVA_L else model.decoder_pred
    hooks = model.backbone.patch_embed._forward_hooks.values()
    scales = [hook.factor for hook in hooks]
    gpus = gpus_of(name)
    return Recipe(
        arch=cfg.model.backbone.arch,
        data=len(members(cfg)),
        epochs=cfg.train_cfg.max_epochs,
        batch=gpus * cfg.train_dataloader.batch_size,
        gpus=gpus,
        lr=cfg.optim_wrapper.optimizer.lr,
        warmup=cfg.param_scheduler.warmup,
        drop_path=cfg.model.backbone.get('drop_path_rate', 0.0),
        betas=tuple(cfg.optim_wrapper.optimizer.betas),
        teacher=cfg.model.teacher.type,
        target=model.teacher.target_dims,
        patch_grad=scales[0] if scales else 1.0,
        head_init=head.weight_init,
    )


@pytest.mark.parametrize('name', RECIPES)
def test_numbers(name):
    assert recipe_of(name) == RECIPES[name]


def test_every_pre_training_config_is_in_the_table():
    found = {name_of(p) for p in FINAL if re.search('_(mim|mae)_', p.stem)}
    # Those from a cache: tests/configs/test_mim_cached.py.
    found = {name for name in found if name.startswith(('eva/', 'eva02/'))} - {
        name for name in found if name.endswith('_cached')
    }
    assert found == set(RECIPES)


@pytest.mark.parametrize('name', RECIPES)
def test_what_all_recipes_share(name):
    cfg = load(CONFIGS / f'{name}.py')
    optim, optimizer = cfg.optim_wrapper, cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.eps, optimizer.weight_decay) == ('AdamW', 1e-6, 0.05)
    assert optim.clip_grad == dict(max_norm=3.0) and 'accumulative_counts' not in optim
    assert (optim.type, optim.dtype) == ('evamm.AmpOptimWrapper', 'bfloat16')
    assert optim.paramwise_cfg == dict(rule='classification', layer_decay_rate=1.0)
    assert cfg.param_scheduler.type == 'evamm.WarmupCosineLR'
    assert cfg.param_scheduler.eta_min == 1e-5 and cfg.param_scheduler.convert_to_iter_based
    assert cfg.train_dataloader.drop_last and cfg.train_dataloader.sampler.shuffle
    assert 'custom_hooks' not in cfg  # no average of the weights
    assert cfg.randomness == dict(seed=88, deterministic=False, diff_rank_seed=True)
    clip_mean, clip_std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    teacher = build_on_meta(cfg).teacher
    for mean, std in (
        (cfg.data_preprocessor.mean, cfg.data_preprocessor.std),
        (teacher.mean, teacher.std),
    ):
        assert list(mean) == pytest.approx([255 * value for value in clip_mean])
        assert list(std) == pytest.approx([255 * value for value in clip_std])
    assert teacher.img_size == (224, 224) == (cfg.model.backbone.img_size,) * 2
    assert cfg.model.teacher.init_cfg.type == 'Pretrained'
    assert cfg.data_preprocessor.to_rgb


@pytest.mark.parametrize('name', RECIPES)
def test_pipelines(name):
    cfg = load(CONFIGS / f'{name}.py')
    block = dict(
        type='evamm.BlockMasking', input_size=16, num_masking_patches=105, min_num_patches=16
    )
    removed = dict(type='evamm.RandomMasking', input_size=16, mask_ratio=0.75)
    mae = name == EVA_L
    for member in members(cfg):
        assert member.type == 'evamm.ImageList'
        assert member.pipeline == [
            dict(type='evamm.LoadImageFromFile'),
            dict(type='evamm.RandomFlip', prob=0.5, direction='horizontal'),  # before the crop
            dict(
                type='evamm.RandomResizedCrop',
                scale=224,
                crop_ratio_range=(0.2, 1.0),
                interpolation='bicubic',
            ),
            removed if mae else block,
            dict(type='evamm.PackMIMInputs'),
        ]
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        resize, crop, mask = loader.dataset.pipeline[1:4]
        assert (resize.scale, resize.interpolation, resize.backend) == (256, 'bicubic', 'pillow')
        assert crop.crop_size == 224
        assert mask == (
            removed | dict(seed=0) if mae else dict(type='evamm.EvenMasking', input_size=16)
        )
        assert (loader.dataset.type, loader.dataset.split) == ('ImageNet', 'val')
        assert loader.batch_size == cfg.train_dataloader.batch_size * 3 // 2
    assert cfg.val_evaluator == dict(type='evamm.MIMCosine') == cfg.test_evaluator
    assert cfg.default_hooks.checkpoint.save_best == 'mim/cosine'
    assert cfg.default_hooks.checkpoint.rule == 'greater'
    with DefaultScope.overwrite_default_scope(cfg.default_scope):  # they can be built
        for member in members(cfg):
            DATASETS.build(dict(member, lazy_init=True))


def official_schedule(base, final, epochs, steps, warmup_epochs):
    """What the official scheduler helper computes (utils.py, `cosine_scheduler`), as in numpy."""
    warmup = np.linspace(0, base, warmup_epochs * steps)
    rest = np.arange(epochs * steps - len(warmup))
    cosine = final + 0.5 * (base - final) * (1 + np.cos(np.pi * rest / len(rest)))
    return np.concatenate((warmup, cosine))


@pytest.mark.parametrize('name', RECIPES)
def test_learning_rate_at_every_step(name):
    cfg, recipe = load(CONFIGS / f'{name}.py'), RECIPES[name]
    steps = 13  # of an epoch
    param = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([param], lr=cfg.optim_wrapper.optimizer.lr)
    settings = {key: value for key, value in cfg.param_scheduler.items() if key != 'type'}
    settings.pop('convert_to_iter_based')
    scheduler = PARAM_SCHEDULERS.get('evamm.WarmupCosineLR').build_iter_from_epoch(
        optimizer, epoch_length=steps, end=recipe.epochs, **settings
    )
    found = []
    for _ in range(recipe.epochs * steps):
        found.append(optimizer.param_groups[0]['lr'])
        scheduler.step()
    expected = official_schedule(recipe.lr, 1e-5, recipe.epochs, steps, recipe.warmup)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
    # Warm-up has both ends, and the cosine does not reach its minimum.
    peak = recipe.warmup * steps
    assert found[0] == 0 and found[peak - 1] == pytest.approx(recipe.lr, rel=1e-12) == found[peak]
    assert found[-1] > 1e-5


@pytest.mark.parametrize(
    ('name', 'images', 'logged'),
    [
        # Mean rate of the first, second and last epoch in EVA-01/logs/pt.
        (
            'eva/eva_giant_p14_mim_128xb32_merged30m',
            7242 * 4096,
            {0: 0.00024998273838293167, 1: 0.00075001726161707, 149: 1.0037180089047582e-05},
        ),
        (
            'eva/eva_large_p14_mae_in21k',
            14_197_122,
            {0: 0.0005999134324051363, 1: 0.0018000865675948637, 149: 1.008977824506173e-05},
        ),
    ],
)
def test_learning_rates_of_the_official_logs(name, images, logged):
    recipe = RECIPES[name]
    steps = images // recipe.batch
    for epoch, expected in logged.items():
        rates = [
            warmup_cosine(
                step,
                total_steps=recipe.epochs * steps,
                warmup_steps=recipe.warmup * steps,
                peak=recipe.lr,
                eta_min=1e-5,
            )
            for step in range(epoch * steps, (epoch + 1) * steps)
        ]
        assert np.mean(rates) == pytest.approx(expected, rel=1e-6)


def test_decay_of_the_tiny_model():
    cfg = load(CONFIGS / 'eva02' / 'eva02_tiny_p14_mim_40xb100_in21k.py')
    model = build_on_meta(cfg)
    settings = cfg.optim_wrapper.to_dict()
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        wrapper = build_optim_wrapper(model, settings)
    free = {
        id(p)
        for group in wrapper.optimizer.param_groups
        if not group['weight_decay']
        for p in group['params']
    }
    names = {name for name, param in model.named_parameters() if id(param) in free}
    expected = {
        name
        for name, param in model.named_parameters()
        if param.ndim == 1 or name in ('backbone.pos_embed', 'backbone.cls_token')
    }
    assert names == expected and 'backbone.mask_token' not in names


def test_merged_data_are_the_published_ones():
    m30, m38 = (
        [member.data_root for member in members(load(CONFIGS / f'{name}.py'))]
        for name in RECIPES
        if 'merged' in name
    )
    known = ['imagenet21k', 'ade', 'cc12m', 'cc3m', 'coco', 'objects365']
    assert [root.split('/')[1] for root in m30] == known and m38 == [*m30, 'data/openimages']


def test_missing_members_are_all_named_at_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load(CONFIGS / 'eva' / 'eva_giant_p14_mim_128xb32_merged30m.py').to_dict()
    for root in ('imagenet21k/train', 'coco/train2017', 'cc3m'):
        (tmp_path / 'data' / root).mkdir(parents=True)
    with pytest.raises(DatasetNotFoundError) as error:
        check_datasets(cfg, ('train_dataloader',))
    for missing in ('data/ade', 'data/cc12m', 'data/cc3m/train', 'data/objects365'):
        assert missing in str(error.value)
    assert 'imagenet21k' not in str(error.value) and 'train2017' not in str(error.value)


def test_mae_style_is_mmpretrains_recipe_without_its_mistakes():
    cfg = load(CONFIGS / f'{MAE_STYLE}.py')
    assert gpus_of(MAE_STYLE) * cfg.train_dataloader.batch_size == 4096
    assert cfg.train_cfg.max_epochs == 400
    assert dict(cfg.optim_wrapper.optimizer) == dict(
        type='AdamW', lr=1.5e-4 * 4096 / 256, betas=(0.9, 0.95), weight_decay=0.05
    )
    assert 'clip_grad' not in cfg.optim_wrapper
    warmup, cosine = cfg.param_scheduler
    assert (warmup.type, warmup.start_factor, warmup.end) == ('LinearLR', 1e-4, 40)
    assert (cosine.type, cosine.T_max, cosine.begin, cosine.end) == (
        'CosineAnnealingLR',
        360,
        40,
        400,
    )
    assert 'eta_min' not in cosine
    pipeline = cfg.train_dataloader.dataset.pipeline
    assert pipeline[1] == dict(
        type='evamm.RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.2, 1.0),
        interpolation='bicubic',
    )
    model = build_on_meta(cfg)
    # Mistake one: CLIP got ImageNet's normalisation.
    assert list(cfg.data_preprocessor.mean) == [123.675, 116.28, 103.53]
    assert model.teacher.mean == pytest.approx((122.771, 116.746, 104.0937), abs=1e-3)
    # Mistake two: CLIP was trained.
    assert model.teacher.target_dims == 512
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper.to_dict())
    groups = wrapper.optimizer.param_groups
    optimized = {id(param): group['weight_decay'] for group in groups for param in group['params']}
    names = {name: optimized.get(id(param)) for name, param in model.named_parameters()}
    assert {name for name, decay in names.items() if decay is None} == {
        'backbone.pos_embed',
        'decoder_pos_embed',
    }
    assert names['mask_token'] == 0 == names['backbone.cls_token']
    assert names['decoder_embed.weight'] == 0.05
    assert not {id(param) for param in model.teacher.parameters()} & set(optimized)


def test_evaluation_of_the_mae_style_model():
    tuned = load(CONFIGS / 'eva_mae_style' / 'vit_base_p16_8xb128_coslr_100e_in1k.py')
    assert dict(tuned.optim_wrapper.optimizer) == dict(
        type='AdamW', lr=4e-4, weight_decay=0.05, betas=(0.9, 0.999), eps=1e-8
    )
    assert tuned.optim_wrapper.paramwise_cfg.layer_decay_rate == 0.65
    assert tuned.model.backbone.drop_path_rate == 0.1
    assert {a.type: a.alpha for a in tuned.model.train_cfg.augments} == dict(Mixup=0.8, CutMix=1.0)
    assert tuned.model.head.loss.label_smooth_val == 0.1
    assert [s.end for s in tuned.param_scheduler] == [5, 100]
    assert tuned.param_scheduler[1].eta_min == 1e-6
    erasing = tuned.train_dataloader.dataset.pipeline[4]
    assert (erasing.erase_prob, erasing.min_area_ratio) == (0.25, 0.02)
    linear = load(CONFIGS / 'eva_mae_style' / 'vit_base_p16_linear_8xb2048_coslr_100e_in1k.py')
    model = build_on_meta(linear)
    trained = {name for name, param in model.named_parameters() if param.requires_grad}
    assert trained == {'head.layers.head.weight', 'head.layers.head.bias'}
    assert dict(linear.optim_wrapper.optimizer) == dict(
        type='evamm.LARS', lr=3.2, weight_decay=0.0, momentum=0.9
    )
    assert [s.end for s in linear.param_scheduler] == [10, 100]
    assert linear.train_dataloader.batch_size == 2048


@pytest.fixture
def images(tmp_path):
    """Images for training, in two folders, and for validation."""
    rng = np.random.default_rng(0)
    for folder, count in (('a/x', 6), ('b', 2), ('val/n0', 3)):
        (tmp_path / folder).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (250, 260, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f'{index}.JPEG')
    (tmp_path / 'meta').mkdir()
    lines = [f'n0/{index}.JPEG {index}' for index in range(3)]
    (tmp_path / 'meta' / 'val.txt').write_text('\n'.join(lines))
    return tmp_path


@pytest.mark.parametrize(
    'name', ['eva/eva_giant_p14_mim_128xb32_merged30m', 'eva/eva_large_p14_mae_in21k']
)
def test_recipe_runs(name, images):
    """Data, model, loss, schedule, validation and checkpoints fit together; all made small."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    small = dict(embed_dims=32, depth=2, num_heads=2, ffn='mlp', rope=False)
    cfg.model.backbone.arch = dict(small, qkv_bias='qkv')
    cfg.model.teacher = dict(type='evamm.CLIPTeacher', arch=small, embed_dims=24, allow_random=True)
    if 'decoder' in cfg.model:
        cfg.model.decoder = dict(embed_dims=16, depth=1, num_heads=2)
    parts = [
        dict(type='evamm.ImageList', data_root=str(images), data_prefix=folder)
        | dict(pipeline=members(cfg)[0].pipeline)
        for folder in ('a', 'b')
    ]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    cfg.train_dataloader.batch_size = 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
    cfg.val_dataloader.dataset.data_root = cfg.test_dataloader.dataset.data_root = str(images)
    cfg.val_cfg.fp16 = cfg.test_cfg.fp16 = False
    cfg.train_cfg.max_epochs = 2
    cfg.param_scheduler.warmup = 1
    cfg.work_dir = str(images / 'work')
    cfg.log_level = 'WARNING'
    runner = RUNNERS.build(cfg)
    runner.train()
    assert runner.iter == 8
    cosine = runner.message_hub.get_scalar('val/mim/cosine').current()
    assert -1 <= cosine <= 1 and cosine == pytest.approx(runner.test()['mim/cosine'], abs=1e-6)
    assert list((images / 'work').glob('best_mim_cosine_epoch_*.pth'))
    assert isinstance(runner.train_dataloader.dataset._dataset.datasets[0], ImageList)
