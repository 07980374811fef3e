"""Each image-text and linear-probe config against the official recipe, number by number.

Sources: the commands and the model card in EVA-CLIP/README.md of github.com/baaivision/EVA with
rei/training/params.py and rei/eva_clip/model_configs; for linear probing EVA-01/eva/README.md.
"""

import ast
import math
import re
from dataclasses import dataclass

import pytest
import torch
from mmengine.config import Config

from evamm.models.clip_variants import CLIP_ARCHS, CLIPArch

from .common import CONFIGS, FINAL, build_on_meta, load, name_of


@dataclass(frozen=True)
class Recipe:
    pair: str
    image: str
    text: str
    gpus: int
    per_gpu: int
    billion: int  # pairs seen in this run
    lr: tuple[float, float, float]  # image, text, other
    layer_decay: tuple[float, float]  # image, text
    patch_dropout: float = 0.0
    drop_path: float = 0.0


RATES = (4e-4, 4e-5, 5e-4)
# fmt: off
RECIPES = {
    'eva01_clip_giant_p14_256xb160_laion400m': Recipe(
        'eva01-clip-g-14', 'EVA01_g_psz14', 'ViT-L-14', 256, 160, 11, RATES, (0.85, 0.75),
        drop_path=0.4),
    'eva01_clip_giant_plus_p14_112xb1024_merged2b': Recipe(
        'eva01-clip-g-14-plus', 'EVA01_g_psz14', 'CLIP-ViT-H-14-laion2B-s32B-b79K', 112, 1024, 11,
        RATES, (0.85, 0.75), patch_dropout=0.5),
    'eva02_clip_base_p16_64xb2048_merged2b': Recipe(
        'eva02-clip-b-16', 'EVA02_B_psz14to16', 'ViT-B-16', 64, 2048, 8, (2e-4, 2e-5, 5e-4),
        (0.75, 0.75)),
    'eva02_clip_large_p14_128xb1024_merged2b': Recipe(
        'eva02-clip-l-14', 'EVA02_L_psz14', 'ViT-L-14', 128, 1024, 4, RATES, (0.85, 0.75)),
    'eva02_clip_large_p14_128xb480_merged2b_336px': Recipe(
        'eva02-clip-l-14-336', 'EVA02_CLIP_L_psz14_224to336', 'EVA02_CLIP_L_psz14_224to336', 128,
        480, 2, RATES, (0.75, 0.65)),
    'eva02_clip_enormous_p14_144xb800_laion2b': Recipe(
        'eva02-clip-bige-14', 'EVA02_E_psz14', 'CLIP-ViT-H-14-laion2B-s32B-b79K', 144, 800, 4,
        RATES, (0.9, 0.75), patch_dropout=0.5),
    'eva02_clip_enormous_plus_p14_144xb1000_laion2b': Recipe(
        'eva02-clip-bige-14-plus', 'EVA02_E_psz14', 'CLIP-ViT-bigG-14-laion2B-39B-b160k', 144,
        1000, 9, RATES, (0.9, 0.75), patch_dropout=0.5),
}
# Batch x GPUs and steps: pairs seen / batch, rounded up; steps for 40 million pairs.
ARITHMETIC = {
    'eva01_clip_giant_p14_256xb160_laion400m': (40960, 268555, 977),
    'eva01_clip_giant_plus_p14_112xb1024_merged2b': (114688, 95913, 349),
    'eva02_clip_base_p16_64xb2048_merged2b': (131072, 61036, 305),
    'eva02_clip_large_p14_128xb1024_merged2b': (131072, 30518, 305),
    'eva02_clip_large_p14_128xb480_merged2b_336px': (61440, 32553, 651),
    'eva02_clip_enormous_p14_144xb800_laion2b': (115200, 34723, 347),
    'eva02_clip_enormous_plus_p14_144xb1000_laion2b': (144000, 62500, 278),
}
# Parameters of pairs (open_clip's table to the digits it prints) and of towers without projection.
PARAMETERS = {
    'eva01_clip_giant_p14_256xb160_laion400m': 1_136_435_841,
    'eva01_clip_giant_plus_p14_112xb1024_merged2b': 1_366_621_569,
    'eva02_clip_base_p16_64xb2048_merged2b': 149_691_137,
    'eva02_clip_large_p14_128xb1024_merged2b': 427_755_457,
    'eva02_clip_large_p14_128xb480_merged2b_336px': 428_083_137,
    'eva02_clip_enormous_p14_144xb800_laion2b': 4_704_589_569,
    'eva02_clip_enormous_plus_p14_144xb1000_laion2b': 5_044_889_089,
    'eva01_clip_giant_p14_headless': 1_012_588_928 - 1024 * 1409,
    'eva02_clip_base_p16_headless': 86_263_040 - 512 * 769,
    'eva02_clip_large_p14_headless': 304_105_152 - 768 * 1025,
    'eva02_clip_large_p14_headless_336px': 304_432_832 - 768 * 1025,
    'eva02_clip_enormous_p14_headless': 4_350_556_928 - 1024 * 1793,
}
# fmt: on
NAMES = list(RECIPES)
HEADLESS = [name for name in PARAMETERS if 'headless' in name]


def get(name: str) -> Config:
    return load(CONFIGS / 'eva_clip' / f'{name}.py')


def header_of(name: str) -> str:
    path = CONFIGS / 'eva_clip' / f'{name}.py'
    return ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))


def file_of(init_cfg: dict) -> str:
    """What the address of a file says: its name, or its repository if all are called the same."""
    parts = init_cfg.checkpoint.split('/')
    stem = parts[-1].rpartition('.')[0]
    return parts[-4] if stem == 'open_clip_pytorch_model' else stem


def recipe_of(cfg: Config) -> Recipe:
    model, optim = cfg.model, cfg.optim_wrapper
    arch = CLIPArch(model.backbone.arch, model.backbone.img_size, model.text.arch, model.embed_dims)
    towers = optim.paramwise_cfg.towers
    total = cfg.auto_scale_lr.base_batch_size
    per_gpu = cfg.train_dataloader.batch_size
    whole = model.get('init_cfg')
    return Recipe(
        pair=next(name for name, known in CLIP_ARCHS.items() if known == arch),
        image=file_of(whole or model.backbone.init_cfg),
        text=file_of(whole or model.text.init_cfg),
        gpus=total // per_gpu,
        per_gpu=per_gpu,
        billion=round(cfg.train_cfg.max_iters * total / 1e9),
        lr=(towers.visual.lr, towers.text.lr, optim.optimizer.lr),
        layer_decay=(towers.visual.layer_decay_rate, towers.text.layer_decay_rate),
        patch_dropout=model.backbone.get('patch_dropout', 0.0),
        drop_path=model.backbone.get('drop_path_rate', 0.0),
    )


@pytest.mark.parametrize('name', NAMES)
def test_numbers(name):
    assert recipe_of(get(name)) == RECIPES[name]


def test_every_config_is_in_the_tables():
    found = {path.stem for path in FINAL if path.parent.name == 'eva_clip'}
    assert found == set(PARAMETERS) and set(RECIPES) == set(ARITHMETIC) == found - set(HEADLESS)


@pytest.mark.parametrize('name', NAMES)
def test_arithmetic(name):
    cfg, recipe = get(name), RECIPES[name]
    total, steps, interval = ARITHMETIC[name]
    assert total == recipe.gpus * recipe.per_gpu == cfg.auto_scale_lr.base_batch_size
    assert steps == math.ceil(recipe.billion * 1e9 / total) == cfg.train_cfg.max_iters
    assert interval == round(40e6 / total) == cfg.train_cfg.val_interval
    assert cfg.default_hooks.checkpoint.interval == interval
    header = header_of(name)
    assert f'Total batch: {recipe.gpus} GPUs x {recipe.per_gpu} pairs = {total}.' in header
    assert f'Steps: {recipe.billion} billion pairs / {total} = {steps}; {interval} for' in header
    assert f'NNODES={recipe.gpus // 8} ' in header
    assert f'bash tools/dist_train.sh configs/eva_clip/{name}.py 8' in header
    assert f'_{recipe.gpus}xb{recipe.per_gpu}_' in name
    assert re.search(r'^Reproduces: `EVA0\w+` of EVA-CLIP/README', header, re.M)
    assert re.search(r'^Expected: \d\d\.\d % zero-shot', header, re.M)
    published = re.search(r'train_cfg\.max_iters=(\d+)', header)  # 100 epochs of 40 million
    assert published is None or int(published[1]) == math.ceil(4e9 / total)


@pytest.mark.parametrize('name', NAMES)
def test_what_all_recipes_share(name):
    cfg = get(name)
    model, optim, schedule = cfg.model, cfg.optim_wrapper, cfg.param_scheduler
    assert model.type == 'evamm.EVACLIP' and model.text.type == 'evamm.CLIPTextTransformer'
    assert model.backbone.out_type == 'cls_token'
    assert model.backbone.with_cp and model.text.with_cp
    assert model.loss == dict(type='evamm.ContrastiveLoss', local_loss=True, gather_with_grad=True)
    assert 'train_cfg' not in model  # ln 100, all pairs at once
    assert optim.optimizer == dict(
        type='evamm.LAMB', lr=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05
    )
    assert (optim.type, optim.dtype) == ('evamm.AmpOptimWrapper', 'bfloat16')
    assert optim.clip_grad == dict(max_norm=5.0) and 'accumulative_counts' not in optim
    assert optim.constructor == 'evamm.LayerDecayOptimWrapperConstructor'
    assert optim.paramwise_cfg.rule == 'classification'
    towers = optim.paramwise_cfg.towers
    assert towers.visual.prefixes == ['backbone.', 'head.'] and towers.text.prefixes == ['text.']
    assert 'weight_decay' not in towers.visual and 'weight_decay' not in towers.text
    assert schedule == dict(
        type='evamm.WarmupCosineLR', warmup=2000, eta_min=0.0, by_epoch=False, from_zero=False
    )
    assert not cfg.train_cfg.by_epoch and not cfg.default_hooks.checkpoint.by_epoch
    assert not cfg.log_processor.by_epoch
    assert cfg.randomness.seed == 4096 and cfg.randomness.diff_rank_seed
    assert cfg.runner_type == 'evamm.EVARunner' and cfg.default_scope == 'mmpretrain'
    assert cfg.train_dataloader.num_workers == 8
    clip_mean, clip_std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    assert cfg.data_preprocessor.mean == pytest.approx([255 * value for value in clip_mean])
    assert cfg.data_preprocessor.std == pytest.approx([255 * value for value in clip_std])
    assert cfg.data_preprocessor.to_rgb


@pytest.mark.parametrize('name', NAMES)
def test_starting_files(name):
    """Inner attention norms and projections have no counterpart in the files they start from."""
    model, recipe = get(name).model, RECIPES[name]
    if 'init_cfg' in model:
        assert 'init_cfg' not in model.backbone and 'init_cfg' not in model.text
        return
    fresh = model.backbone.init_cfg.get('allow_missing')
    has_norm = recipe.pair in ('eva02-clip-b-16', 'eva02-clip-l-14')
    assert fresh == (['blocks.*.attn.norm.*'] if has_norm else None)
    assert set(model.text.init_cfg) == {'type', 'checkpoint'}  # text_projection starts fresh
    for init_cfg in (model.backbone.init_cfg, model.text.init_cfg):
        assert init_cfg.checkpoint.startswith('https://') and '/blob/' not in init_cfg.checkpoint


@pytest.mark.parametrize('name', NAMES)
def test_the_data_is_that_of_the_card(name):
    (source,) = [key for key in ('laion400m', 'merged2b', 'laion2b') if f'_{key}' in name]
    size = 336 if RECIPES[name].pair.endswith('336') else 224
    text = (CONFIGS / 'eva_clip' / f'{name}.py').read_text(encoding='utf-8')
    assert f"'../_base_/datasets/{source}_{size}.py'" in text
    steps = list(steps_of(get(name).train_dataloader))
    sources = [step for step in steps if step.type == 'evamm.ImageTextShards']
    assert len(sources) == (2 if source == 'merged2b' else 1)
    for mixture in (step for step in steps if step.type == 'evamm.ImageTextMixture'):
        laion, coyo = mixture.weights  # 1.6 and 0.4 billion pairs
        assert laion == pytest.approx(4 * coyo) and 'laion' in str(mixture.datasets[0])
    crops = [step for step in steps if 'Crop' in step.type]
    assert len(crops) == len(sources)
    for crop in crops:
        assert (crop.scale, tuple(crop.crop_ratio_range)) == (size, (0.9, 1.0))
        assert crop.interpolation == 'bicubic'
    assert not any('Flip' in step.type or 'RandAugment' in step.type for step in steps)


def steps_of(value):
    """All dicts with a type, however deep."""
    if isinstance(value, dict):
        if 'type' in value:
            yield value
        value = list(value.values())
    for item in value if isinstance(value, (list, tuple)) else ():
        yield from steps_of(item)


@pytest.mark.parametrize('name', NAMES)
def test_plain_testing_is_the_published_protocol(name):
    cfg = get(name)
    size = cfg.model.backbone.img_size
    assert cfg.model.test_cfg == dict(
        type='zero_shot', classes='imagenet', templates='openai', logit_scale=100.0
    )
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.type == 'ImageNet' and loader.dataset.split == 'val'
        resize, crop = loader.dataset.pipeline[1:3]
        assert (resize.type, resize.scale, resize.interpolation, resize.backend) == (
            'evamm.ResizeEdge', size, 'bicubic', 'pillow',
        )  # fmt: skip
        assert (crop.type, crop.crop_size) == ('CenterCrop', size)
    assert cfg.val_evaluator == dict(type='Accuracy', topk=(1, 5)) == cfg.test_evaluator
    assert cfg.val_cfg == {} == cfg.test_cfg


@pytest.mark.parametrize('name', PARAMETERS)
def test_parameters(name):
    assert sum(p.numel() for p in build_on_meta(get(name)).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize('name', HEADLESS)
def test_towers_alone_are_those_of_the_pairs(name):
    tower = build_on_meta(get(name)).backbone
    settings = get(name).model.backbone
    assert (settings.arch, settings.img_size) in {
        (pair.vision, pair.img_size) for pair in CLIP_ARCHS.values()
    }
    assert tower.out_type == 'cls_token' and type(tower.norm).__name__ == 'LayerNorm'
    assert get(name).model.head is None and get(name).train_dataloader is None


def test_rates_scale_with_pairs_and_not_with_the_parts_they_are_encoded_in():
    """--auto-scale-lr on 8 of 64 GPUs, with the batch in eight parts: every tower an eighth."""
    import logging
    from types import SimpleNamespace

    from evamm.engine import AmpOptimWrapper, EVARunner, LayerDecayOptimWrapperConstructor

    cfg = get('eva02_clip_base_p16_64xb2048_merged2b').copy()
    cfg.model.train_cfg = dict(micro_batch_size=256)
    model = build_on_meta(cfg)
    assert model.micro_batch_size == 256
    wrapper = cfg.optim_wrapper.to_dict()
    paramwise = wrapper.pop('paramwise_cfg')
    del wrapper['constructor']
    wrapper['type'] = AmpOptimWrapper
    wrapper = LayerDecayOptimWrapperConstructor(wrapper, paramwise)(model)
    runner = object.__new__(EVARunner)
    runner._world_size, runner._train_dataloader = 8, cfg.train_dataloader
    runner.logger, runner.param_schedulers = logging.getLogger(), SimpleNamespace()
    before = [group['lr'] for group in wrapper.param_groups]
    assert {2e-4, 2e-5, 5e-4} <= set(before)
    runner.scale_lr(wrapper, dict(cfg.auto_scale_lr, enable=True))
    after = [group['lr'] for group in wrapper.param_groups]
    assert after == pytest.approx([rate / 8 for rate in before])


LINEAR = {224: 1.0, 336: 0.6}


@pytest.mark.parametrize('size', LINEAR)
def test_linear_probing(size):
    name = f'eva_giant_p14_clip_linear_probe_8xb400_in1k_{size}px'
    cfg = load(CONFIGS / 'eva' / f'{name}.py')
    backbone, head, optim = cfg.model.backbone, cfg.model.head, cfg.optim_wrapper
    assert (backbone.arch, backbone.img_size) == ('eva-clip-giant', size)
    assert backbone.out_type == 'cls_token' and backbone.get('drop_path_rate', 0) == 0
    assert backbone.init_cfg.checkpoint.endswith('/eva_clip_psz14_vision_enc.pt')
    assert head.type == 'evamm.LinearProbeHead' and head.loss == dict(type='CrossEntropyLoss')
    assert head.init_cfg == dict(type='TruncNormal', layer='Linear', std=0.01)
    assert optim.optimizer == dict(
        type='evamm.LARS', lr=LINEAR[size], momentum=0.9, weight_decay=0.0, trust_coefficient=0.001
    )
    assert optim.get('clip_grad') is None and 'constructor' not in optim
    assert 8 * cfg.train_dataloader.batch_size * optim.accumulative_counts == 16000
    assert cfg.auto_scale_lr.base_batch_size == 16000
    assert cfg.train_cfg.max_epochs == 90 and cfg.param_scheduler.warmup == 10
    assert cfg.param_scheduler.get('from_zero', True) and cfg.param_scheduler.eta_min == 0
    steps = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert steps == [
        'evamm.LoadImageFromFile', 'evamm.RandomResizedCrop', 'evamm.RandomFlip',
        'evamm.PackInputs',
    ]  # fmt: skip
    crop = cfg.train_dataloader.dataset.pipeline[1]
    assert crop.scale == size and tuple(crop.crop_ratio_range) == (0.08, 1.0)
    assert not any('EMAHook' in hook.type for hook in cfg.get('custom_hooks', []))
    model = build_on_meta(cfg)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        'head.fc.weight',
        'head.fc.bias',
    }
    model.train()
    assert not any(module.training for module in model.backbone.blocks)
    assert model.head.bn.training and isinstance(model.head.bn, torch.nn.BatchNorm1d)
    text = (CONFIGS / 'eva' / f'{name}.py').read_text(encoding='utf-8')
    assert 'Total batch: 8 GPUs x 400 images x 5 accumulation = 16000.' in text
    assert name_of(CONFIGS / 'eva' / f'{name}.py') in text


def test_any_pair_starts_a_classifier_with_layer_decay(tmp_path):
    """Fine-tuning from a CLIP file needs its address and nothing else."""
    from mmengine.registry import MODELS

    from evamm.engine import LayerDecayOptimWrapperConstructor

    arch = dict(embed_dims=16, depth=2, num_heads=2, ffn_norm=True, attn_norm=True)
    pair = MODELS.build(
        dict(
            type='evamm.EVACLIP',
            embed_dims=8,
            backbone=dict(
                type='evamm.EVAViT', arch=arch, img_size=28, patch_size=14, out_type='cls_token'
            ),
            text=dict(
                type='evamm.CLIPTextTransformer', arch=dict(width=8, depth=1, num_heads=2),
                context_length=5, vocab_size=9,
            ),
        )
    )  # fmt: skip
    pair.init_weights()
    official = {
        (f'visual.{name}' if name.startswith('head.') else name.replace('backbone.', 'visual.', 1)):
        value for name, value in pair.state_dict().items()
    }  # fmt: skip
    torch.save(official, tmp_path / 'EVA02_CLIP_tiny.pt')
    cfg = load(CONFIGS / 'eva' / 'eva_giant_p14_clip_8xb16_in1k_224px.py').model.copy()
    cfg.backbone.update(arch=arch, img_size=28, patch_size=14, with_cp=False)
    cfg.backbone.init_cfg.checkpoint = str(tmp_path / 'EVA02_CLIP_tiny.pt')
    cfg.head.update(in_channels=16, num_classes=3)
    cfg.pop('data_preprocessor', None)
    cfg.type = 'mmpretrain.ImageClassifier'
    model = MODELS.build(cfg)
    model.init_weights()
    for name in ('blocks.1.attn.norm.weight', 'pos_embed', 'blocks.0.mlp.w12.weight'):
        assert torch.equal(model.backbone.state_dict()[name], pair.backbone.state_dict()[name])
    wrapper = dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05))
    paramwise = dict(rule='classification', layer_decay_rate=0.9)
    groups = LayerDecayOptimWrapperConstructor(wrapper, paramwise)(model).optimizer.param_groups
    # Layer 0 is 0.9^3: position embedding and class token (the patch projection is frozen).
    assert {round(group['lr'], 6) for group in groups} == {0.729, 0.81, 0.9, 1.0}
