"""Each fine-tuning config against the official recipe, number by number.

Sources: the commands in EVA-01/eva/README.md and EVA-02/asuka/README.md of
github.com/baaivision/EVA with the defaults of run_class_finetuning.py; for EVA-L the logs in
EVA-01/logs/cls, and BEiT v2's ViT-L recipe where the logs are silent (the heads of those configs
say which).
"""

import ast
import re
from dataclasses import dataclass

import pytest
from mmengine.config import Config

from .common import CONFIGS, FINAL, load, name_of


@dataclass(frozen=True)
class Recipe:
    init: str
    res: int
    batch: int
    lr: float
    layer_decay: float
    epochs: int
    warmup: int
    drop_path: float
    smoothing: float
    min_crop: float = 0.08
    mixup: float = 0.0
    cutmix: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    min_lr: float = 0.0
    ema: float | None = 0.9999
    classes: int = 1000
    checkpointing: bool = False
    fresh_norm: bool = True  # the file has no fc_norm, so it starts new


IN21K = dict(classes=21841, ema=None)
G = dict(checkpointing=True)
TUNED = dict(fresh_norm=False)

# fmt: off
RECIPES = {
    'eva02/eva02_tiny_p14_8xb16_in1k':
        Recipe('eva02_Ti_pt_in21k_p14', 336, 1024, 2e-4, 0.9, 100, 5, 0.1, 0.1),
    'eva02/eva02_small_p14_8xb16_in1k':
        Recipe('eva02_S_pt_in21k_p14', 336, 1024, 1e-4, 0.8, 100, 5, 0.1, 0.1),
    'eva02/eva02_base_p14_8xb16_in1k':
        Recipe('eva02_B_pt_in21k_p14', 448, 1024, 1e-4, 0.7, 30, 3, 0.1, 0.1),
    'eva02/eva02_large_p14_8xb16_in1k':
        Recipe('eva02_L_pt_in21k_p14', 448, 1024, 5e-5, 0.8, 30, 3, 0.15, 0.2),
    'eva02/eva02_large_p14_m38m_8xb16_in1k':
        Recipe('eva02_L_pt_m38m_p14', 448, 1024, 7e-5, 0.8, 30, 3, 0.15, 0.2),
    'eva02/eva02_base_p14_8xb16_in21k':
        Recipe('eva02_B_pt_in21k_p14', 448, 2048, 3e-4, 0.7, 40, 1, 0.1, 0.1, 0.2, **IN21K),
    'eva02/eva02_large_p14_8xb16_in21k':
        Recipe('eva02_L_pt_in21k_p14', 448, 1024, 2e-4, 0.75, 20, 1, 0.15, 0.1, 0.2, **IN21K),
    'eva02/eva02_large_p14_m38m_8xb16_in21k':
        Recipe('eva02_L_pt_m38m_p14', 448, 2048, 3e-4, 0.75, 30, 1, 0.15, 0.1, 0.2, **IN21K),
    'eva02/eva02_base_p14_in21k_medft_8xb16_in1k':
        Recipe('eva02_B_pt_in21k_medft_in21k_p14', 448, 512, 5e-5, 0.8, 15, 2, 0.15, 0.2, **TUNED),
    'eva02/eva02_large_p14_in21k_medft_8xb16_in1k':
        Recipe('eva02_L_pt_in21k_medft_in21k_p14', 448, 512, 2e-5, 0.85, 20, 2, 0.15, 0.2, **TUNED),
    'eva02/eva02_large_p14_m38m_in21k_medft_8xb16_in1k':
        Recipe('eva02_L_pt_m38m_medft_in21k_p14', 448, 512, 2e-5, 0.85, 20, 2, 0.15, 0.2, **TUNED),
    'eva/eva_giant_p14_8xb16_in21k':
        Recipe('eva_psz14', 224, 4096, 1e-4, 0.85, 60, 15, 0.4, 0.1, 0.5, cutmix=1.0,
               betas=(0.9, 0.98), eps=1e-6, min_lr=1e-6, **IN21K, **G),
    'eva/eva_giant_p14_in21k_medft_8xb16_in1k_336px':
        Recipe('eva_21k_224px_psz14', 336, 512, 3e-5, 0.95, 10, 2, 0.4, 0.3, **TUNED, **G),
    'eva/eva_giant_p14_in21k_medft_8xb16_in1k_560px':
        Recipe('eva_21k_224px_psz14', 560, 512, 3e-5, 0.95, 15, 2, 0.4, 0.3, **TUNED, **G),
    'eva/eva_giant_p14_clip_8xb16_in1k_224px':
        Recipe('eva_clip_psz14_vision_enc', 224, 1024, 3e-5, 0.9, 20, 2, 0.4, 0.3, **G),
    'eva/eva_giant_p14_clip_8xb16_in1k_336px':
        Recipe('eva_clip_psz14_vision_enc', 336, 512, 3e-5, 0.9, 20, 2, 0.4, 0.3, **G),
    'eva/eva_large_p14_8xb16_in21k':
        Recipe('eva_l_psz14', 224, 4096, 6e-4, 0.75, 90, 15, 0.2, 0.1, 0.5, mixup=0.8, cutmix=1.0,
               min_lr=1e-6, **IN21K),
    'eva/eva_large_p14_8xb16_in1k_196px':
        Recipe('eva_l_psz14', 196, 1024, 2e-4, 0.8, 50, 5, 0.2, 0.1, mixup=0.8, cutmix=1.0),
    'eva/eva_large_p14_8xb16_in1k_336px':
        Recipe('eva_l_psz14', 336, 1024, 2e-4, 0.8, 50, 5, 0.2, 0.1, mixup=0.8, cutmix=1.0),
    'eva/eva_large_p14_in21k_medft_8xb16_in1k_196px':
        Recipe('eva_l_psz14_21k_ft', 196, 512, 6e-5, 0.8, 20, 5, 0.25, 0.2, **TUNED),
    'eva/eva_large_p14_in21k_medft_8xb16_in1k_336px':
        Recipe('eva_l_psz14_21k_ft', 336, 512, 6e-5, 0.8, 20, 5, 0.25, 0.2, **TUNED),
}
# fmt: on


def recipe_of(cfg: Config) -> Recipe:
    """The recipe that a config holds, in the words of the table."""
    backbone, head, optim = cfg.model.backbone, cfg.model.head, cfg.optim_wrapper
    augments = {a.type: a.alpha for a in cfg.model.get('train_cfg', {}).get('augments', [])}
    crop = cfg.train_dataloader.dataset.pipeline[1]
    emas = [1 - hook.momentum for hook in cfg.custom_hooks if hook.type == 'evamm.EMAHook']
    return Recipe(
        init=backbone.init_cfg.checkpoint.rpartition('/')[2].removesuffix('.pt'),
        res=crop.scale,
        batch=8 * cfg.train_dataloader.batch_size * optim.accumulative_counts,
        lr=optim.optimizer.lr,
        layer_decay=optim.paramwise_cfg.layer_decay_rate,
        epochs=cfg.train_cfg.max_epochs,
        warmup=cfg.param_scheduler.warmup,
        drop_path=backbone.drop_path_rate,
        smoothing=head.loss.label_smooth_val,
        min_crop=crop.crop_ratio_range[0],
        mixup=augments.pop('Mixup', 0.0),
        cutmix=augments.pop('CutMix', 0.0),
        betas=tuple(optim.optimizer.betas),
        eps=optim.optimizer.eps,
        min_lr=cfg.param_scheduler.eta_min,
        ema=emas[0] if emas else None,
        classes=head.num_classes,
        checkpointing=backbone.get('with_cp', False),
        fresh_norm=backbone.init_cfg.get('mim_norm') == 'discard',
    )


@pytest.mark.parametrize('name', RECIPES)
def test_numbers(name):
    assert recipe_of(load(CONFIGS / f'{name}.py')) == RECIPES[name]


def test_every_fine_tuning_config_is_in_the_table():
    trained = {name_of(p) for p in FINAL if p.parent.name in ('eva', 'eva02') and '_8xb' in p.stem}
    # Linear probing: test_clip_recipes.py.
    assert {name for name in trained if '_linear_probe_' not in name} == set(RECIPES)


@pytest.mark.parametrize('name', RECIPES)
def test_what_all_recipes_share(name):
    cfg, recipe = load(CONFIGS / f'{name}.py'), RECIPES[name]
    backbone, head, optim = cfg.model.backbone, cfg.model.head, cfg.optim_wrapper
    # Mean of the patch tokens, then fc_norm; the patch projection gets no gradient.
    assert backbone.out_type == 'avg_featmap' and backbone.get('final_norm') is None
    assert backbone.freeze_patch_embed and backbone.get('frozen_stages', -1) == -1
    assert cfg.model.neck is None
    assert backbone.img_size == recipe.res
    assert head.loss.type == 'LabelSmoothLoss' and head.loss.mode == 'original'
    assert head.init_cfg == dict(type='TruncNormal', layer='Linear', std=0.02 * 0.001)
    assert optim.optimizer.type == 'AdamW' and optim.optimizer.weight_decay == 0.05
    assert optim.constructor == 'evamm.LayerDecayOptimWrapperConstructor'
    assert optim.paramwise_cfg.rule == 'classification'
    assert optim.get('clip_grad') is None
    assert (optim.type, optim.dtype) == ('evamm.AmpOptimWrapper', 'bfloat16')
    assert cfg.param_scheduler.type == 'evamm.WarmupCosineLR'
    assert cfg.param_scheduler.by_epoch and cfg.param_scheduler.convert_to_iter_based
    assert cfg.train_cfg.by_epoch
    assert cfg.train_dataloader.drop_last and cfg.train_dataloader.sampler.shuffle
    assert cfg.runner_type == 'evamm.EVARunner' and cfg.randomness.seed == 0
    # The preprocessor makes soft targets, so it has to know the number of classes.
    assert cfg.data_preprocessor.num_classes == head.num_classes
    clip_mean, clip_std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    assert cfg.data_preprocessor.mean == pytest.approx([255 * value for value in clip_mean])
    assert cfg.data_preprocessor.std == pytest.approx([255 * value for value in clip_std])
    assert cfg.data_preprocessor.to_rgb


@pytest.mark.parametrize('name', RECIPES)
def test_validation(name):
    """The official ImageNet-21K runs are not validated; the others are after every epoch."""
    cfg = load(CONFIGS / f'{name}.py')
    if RECIPES[name].classes == 21841:
        assert cfg.val_dataloader is None and cfg.val_cfg is None and cfg.val_evaluator is None
        assert cfg.default_hooks.checkpoint.save_best is None
        assert cfg.train_dataloader.dataset.type == 'ImageNet21k'
    else:
        assert cfg.train_cfg.val_interval == 1
        assert cfg.val_dataloader.dataset.split == 'val' == cfg.test_dataloader.dataset.split
        assert cfg.val_evaluator == dict(type='Accuracy', topk=(1, 5)) == cfg.test_evaluator
        assert cfg.train_dataloader.dataset.type == 'ImageNet'


@pytest.mark.parametrize('name', RECIPES)
def test_header_does_the_arithmetic(name):
    path = CONFIGS / f'{name}.py'
    cfg = load(path)
    header = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
    sum_of = r'^Total batch: (\d+) GPUs x (\d+) images x (\d+) accumulation = (\d+)\.$'
    gpus, images, steps, total = map(int, re.search(sum_of, header, re.M).groups())
    assert gpus * images * steps == total == RECIPES[name].batch
    assert total == cfg.auto_scale_lr.base_batch_size
    assert images == cfg.train_dataloader.batch_size
    assert steps == cfg.optim_wrapper.accumulative_counts
    assert f'_{gpus}xb{images}_' in path.name
    command = f'Command: bash tools/dist_train.sh configs/{name}.py {gpus}'
    assert command in header.splitlines()
    assert re.search(r'^Reproduces: `\w+` of EVA-0[12]/', header, re.M)
    assert re.search(r'^Expected: ', header, re.M) and re.search(r'^Hardware: ', header, re.M)


@pytest.mark.parametrize('name', RECIPES)
def test_file_name_agrees_with_content(name):
    cfg, recipe = load(CONFIGS / f'{name}.py'), RECIPES[name]
    stem = name.rpartition('/')[2]
    family, size, patch = re.match(r'(eva02|eva)_(\w+?)_p(\d+)_', stem).groups()
    assert cfg.model.backbone.arch == f'{family}-{size}'
    assert cfg.model.backbone.get('patch_size', 14) == int(patch)
    assert ('_in21k' in stem.split('8xb16')[1]) == (recipe.classes == 21841)
    assert ('_m38m_' in stem) == ('m38m' in recipe.init)
    assert ('_in21k_medft_' in stem) == (not recipe.fresh_norm)
    assert ('_clip_' in stem) == ('clip' in recipe.init)
    pixels = re.search(r'_(\d+)px$', stem)
    assert pixels is None or int(pixels[1]) == recipe.res
