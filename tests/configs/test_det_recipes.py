"""Each detection config against the official recipe, number by number.

Sources: the configs in det/projects/ViTDet/configs and det/configs of EVA-01 and EVA-02 of
github.com/baaivision/EVA with everything they inherit, and the commands in both det/README.md.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from evamm.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    METRICS,
    PARAM_SCHEDULERS,
    VISUALIZERS,
)

from .common import CONFIGS, FINAL, build_on_meta, load, name_of

LVIS, O365 = 1203, 365


@dataclass(frozen=True)
class Recipe:
    arch: str
    size: int
    window: int
    stride: int  # every so many blocks attend globally, the last one among them
    drop_path: float
    lr: float
    decay: float
    batch: int
    iters: int
    warmup: int
    milestones: tuple[int, ...]
    classes: int = 80
    recomputes: bool = False
    averaged: bool = False
    start: str = ''  # file that training starts from


B, L, G = 'eva02-base', 'eva02-large', 'eva-giant'
CASCADE, BOXES = 'cascade_mask_rcnn', 'cascade_rcnn'
STEPS = {60_000: (48_000, 54_000), 50_000: (40_000, 45_000), 40_000: (32_000, 36_000)}
CP, EMA = dict(recomputes=True), dict(recomputes=True, averaged=True)
B_IN21K, L_IN21K, L_M38M = (
    f'pt/eva02_{name}_p14to16.pt' for name in ('B_pt_in21k', 'L_pt_in21k', 'L_pt_m38m')
)
# fmt: off
RECIPES = {
    f'eva02_det/{CASCADE}_eva02_base_p16_1024_8xb16_coco':
        Recipe(B, 1024, 16, 3, .1, 5e-5, .7, 128, 60_000, 1000, STEPS[60_000], start=B_IN21K),
    f'eva02_det/{CASCADE}_eva02_large_p16_m38m_1024_16xb9_coco':
        Recipe(L, 1024, 16, 6, .4, 6e-5, .8, 144, 60_000, 1000, STEPS[60_000], start=L_M38M),
    f'eva02_det/{CASCADE}_eva02_base_p16_1024_8xb16_lvis':
        Recipe(B, 1024, 16, 3, .1, 1e-4, .7, 128, 50_000, 1000, STEPS[50_000], LVIS, start=B_IN21K),
    f'eva02_det/{CASCADE}_eva02_large_p16_1024_16xb8_lvis':
        Recipe(L, 1024, 16, 6, .4, 1e-4, .8, 128, 40_000, 1000, STEPS[40_000], LVIS, start=L_IN21K),
    f'eva02_det/{CASCADE}_eva02_base_p16_1536_16xb8_coco':
        Recipe(B, 1536, 32, 2, .1, 5e-5, .7, 128, 60_000, 1000, STEPS[60_000], start=B_IN21K),
    f'eva02_det/{CASCADE}_eva02_large_p16_m38m_1536_16xb8_coco':
        Recipe(L, 1536, 32, 3, .4, 5e-5, .8, 128, 60_000, 1000, STEPS[60_000], start=L_M38M, **CP),
    f'eva02_det/{CASCADE}_eva02_large_p16_1536_16xb8_lvis':
        Recipe(L, 1536, 32, 3, .4, 1e-4, .8, 128, 40_000, 1000, STEPS[40_000], LVIS, start=L_IN21K,
               **CP),
    f'eva02_det/{BOXES}_eva02_large_p16_m38m_1536_40xb4_o365':
        Recipe(L, 1536, 16, 3, .4, 6e-5, .8, 160, 400_000, 5000, (320_000, 360_000), O365,
               start=L_M38M),
    f'eva02_det/{BOXES}_eva02_large_p16_1536_40xb4_o365':
        Recipe(L, 1536, 16, 3, .4, 6e-5, .8, 160, 400_000, 5000, (320_000, 360_000), O365,
               start=L_IN21K),
    f'eva02_det/{CASCADE}_eva02_large_p16_m38m_o365_1536_8xb8_coco':
        Recipe(L, 1536, 16, 3, .3, 4e-5, .8, 64, 40_000, 400, (),
               start='det/eva02_L_m38m_to_o365.pth', **EMA),
    f'eva02_det/{CASCADE}_eva02_large_p16_o365_1536_8xb8_lvis':
        Recipe(L, 1536, 16, 3, .3, 4e-5, .8, 64, 70_000, 700, (), LVIS,
               start='det/eva02_L_in21k_to_o365.pth', **EMA),
    f'eva_det/{BOXES}_eva_giant_p16_1024_128xb1_o365':
        Recipe(G, 1024, 16, 4, .6, 1e-4, .9, 128, 320_000, 15_000, (), O365,
               start='eva_psz14to16.pt', **CP),
    f'eva_det/{BOXES}_eva_giant_p16_1280_128xb1_o365':
        Recipe(G, 1280, 16, 4, .6, 1e-4, .9, 128, 60_000, 5000, (45_000,), O365,
               start='iter_320000.pth', **CP),
    f'eva_det/{CASCADE}_eva_giant_p16_o365_1280_64xb1_coco':
        Recipe(G, 1280, 16, 4, .6, 2.5e-5, .9, 64, 45_000, 500, (40_000, 44_999),
               start='eva_o365.pth', **CP),
    f'eva_det/{CASCADE}_eva_giant_p16_o365_1280_64xb1_lvis':
        Recipe(G, 1280, 16, 4, .6, 2e-4, .9, 64, 75_001, 250, (70_000, 75_000), LVIS,
               start='eva_o365.pth', **CP),
}


@dataclass(frozen=True)
class Protocol:
    """How the published figures are measured."""

    size: int = 1024
    soft: float | None = None  # with soft-NMS, the threshold of the scores; None: NMS
    maskness: bool = False
    score: float = 0.05
    top: int = 100
    dets: int = 100


SYS, OF_LVIS = dict(size=1536, soft=0.0), dict(score=0.02, top=300, dets=300)
PROTOCOLS = {
    f'eva02_det/{CASCADE}_eva02_base_p16_1024_8xb16_coco': Protocol(),
    f'eva02_det/{CASCADE}_eva02_large_p16_m38m_1024_16xb9_coco': Protocol(),
    f'eva02_det/{CASCADE}_eva02_base_p16_1024_8xb16_lvis': Protocol(**OF_LVIS),
    f'eva02_det/{CASCADE}_eva02_large_p16_1024_16xb8_lvis': Protocol(**OF_LVIS),
    f'eva02_det/{CASCADE}_eva02_base_p16_1536_16xb8_coco': Protocol(**SYS),
    f'eva02_det/{CASCADE}_eva02_base_p16_1536_16xb8_coco_seg': Protocol(**SYS, maskness=True),
    f'eva02_det/{CASCADE}_eva02_large_p16_m38m_1536_16xb8_coco': Protocol(**SYS),
    f'eva02_det/{CASCADE}_eva02_large_p16_m38m_1536_16xb8_coco_seg':
        Protocol(**SYS, maskness=True),
    f'eva02_det/{CASCADE}_eva02_large_p16_1536_16xb8_lvis':
        Protocol(1536, 0.02, True, 0.02, 300, 300),
    f'eva02_det/{BOXES}_eva02_large_p16_m38m_1536_40xb4_o365': Protocol(1536),
    f'eva02_det/{BOXES}_eva02_large_p16_1536_40xb4_o365': Protocol(1536),
    f'eva02_det/{CASCADE}_eva02_large_p16_m38m_o365_1536_8xb8_coco': Protocol(**SYS),
    f'eva02_det/{CASCADE}_eva02_large_p16_m38m_o365_1536_8xb8_coco_seg':
        Protocol(**SYS, maskness=True),
    f'eva02_det/{CASCADE}_eva02_large_p16_o365_1536_8xb8_lvis':
        Protocol(1536, 0.02, True, 0.02, 300, 1000),
    f'eva_det/{BOXES}_eva_giant_p16_1024_128xb1_o365': Protocol(1024),
    f'eva_det/{BOXES}_eva_giant_p16_1280_128xb1_o365': Protocol(1280),
    f'eva_det/{CASCADE}_eva_giant_p16_o365_1280_64xb1_coco': Protocol(1280),
    f'eva_det/{CASCADE}_eva_giant_p16_o365_1280_64xb1_lvis': Protocol(1280, **OF_LVIS),
    f'eva_det/{CASCADE}_eva_giant_p16_o365_1536_coco_det': Protocol(**SYS),
    f'eva_det/{CASCADE}_eva_giant_p16_o365_1536_coco_seg': Protocol(**SYS, maskness=True),
    f'eva_det/{CASCADE}_eva_giant_p16_o365_1536_lvis':
        Protocol(1536, maskness=True, score=0.001, top=1000, dets=1000),
}
# Of the official models, built with torch's meta device: trunk and pyramid by arch, heads by
# number of classes (boxes, masks), and the RPN. A larger image has larger tables of EVA-01.
TRUNKS = {B: 85_848_576 + 5_560_000, L: 303_388_608 + 7_805_184, G: 1_011_754_368 + 12_278_880}
HEADS = {80: 45_883_647 + 2_644_304, LVIS: 49_336_872 + 2_932_915, O365: 46_760_022}
# fmt: on
RPN = 1_184_015


@cache
def built(name: str) -> torch.nn.Module:
    return build_on_meta(load(CONFIGS / f'{name}.py'))


def recipe_of(name: str) -> Recipe:
    cfg = load(CONFIGS / f'{name}.py')
    header = ast.get_docstring(ast.parse((CONFIGS / f'{name}.py').read_text(encoding='utf-8')))
    sum_of = r'^Total batch: (\d+) GPUs x (\d+) images? x 1 accumulation = (\d+)\.$'
    gpus, images, total = map(int, re.search(sum_of, header, re.M).groups())
    assert gpus * images == total == cfg.auto_scale_lr.base_batch_size
    assert images == cfg.train_dataloader.batch_size and f'_{gpus}xb{images}_' in name
    assert gpus == 8 or f'NNODES={gpus // 8} NODE_RANK=$RANK' in header
    assert f'configs/{name}.py 8' in header
    backbone, scheduler = cfg.model.backbone, cfg.param_scheduler
    local = [index for index, b in enumerate(built(name).backbone.blocks) if b.window_size]
    depth = len(built(name).backbone.blocks)
    stride = next(index for index in range(depth) if index not in local) + 1
    assert local == [index for index in range(depth) if index % stride != stride - 1]
    start = cfg.load_from or backbone.init_cfg.checkpoint
    (resize,) = (
        step
        for step in (
            cfg.train_dataloader.dataset.get('datasets') or [cfg.train_dataloader.dataset]
        )[0].pipeline
        if step.type == 'evamm.LargeScaleJitter'
    )
    assert resize.size == backbone.img_size == cfg.model.data_preprocessor.pad_size
    return Recipe(
        arch=backbone.arch,
        size=backbone.img_size,
        window=backbone.window_size,
        stride=stride,
        drop_path=backbone.drop_path_rate,
        lr=cfg.optim_wrapper.optimizer.lr,
        decay=cfg.optim_wrapper.paramwise_cfg.layer_decay_rate,
        batch=total,
        iters=cfg.train_cfg.max_iters,
        warmup=scheduler.warmup_steps,
        milestones=tuple(scheduler.get('milestones', ())),
        classes=built(name).roi_head.num_classes,
        recomputes=backbone.get('with_cp', False),
        averaged='custom_hooks' in cfg,
        start=start[-len(RECIPES[name].start) :],
    )


@pytest.mark.parametrize('name', RECIPES)
def test_numbers(name):
    assert recipe_of(name) == RECIPES[name]


def test_every_config_is_in_the_tables():
    found = {name_of(path) for path in FINAL if path.parent.name in ('eva_det', 'eva02_det')}
    assert found == set(PROTOCOLS)
    assert {name for name in found if re.search(r'_\d+xb\d+_[a-z0-9]+$', name)} == set(RECIPES)


@pytest.mark.parametrize('name', RECIPES)
def test_what_all_recipes_share(name):
    cfg = load(CONFIGS / f'{name}.py')
    optim = cfg.optim_wrapper
    assert dict(optim.optimizer, lr=0) == dict(
        type='AdamW', lr=0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1
    )
    assert (optim.type, optim.dtype) == ('evamm.AmpOptimWrapper', 'bfloat16')
    assert optim.constructor == 'evamm.LayerDecayOptimWrapperConstructor'
    assert optim.paramwise_cfg.rule == 'detection'
    assert not {'clip_grad', 'accumulative_counts', 'loss_scale'} & set(optim)
    assert not cfg.get('find_unused_parameters', False) and cfg.env_cfg.tf32
    assert cfg.param_scheduler.warmup_factor == 0.001
    hooks = cfg.get('custom_hooks', [])
    assert hooks in ([], [dict(type='evamm.EMAHook', momentum=1e-4)])  # 1 - 0.9999
    backbone = built(name).backbone
    giant = RECIPES[name].arch == G
    assert backbone.pos_embed.shape[1] == 1 + 14 * 14 and backbone.cls_token is None
    assert isinstance(backbone.norm, torch.nn.Identity)
    assert backbone.relative_position == giant == backbone.freeze_patch_embed
    assert backbone.relative_position_resize == 'linear'
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert cfg.model.data_preprocessor.std == [58.395, 57.12, 57.375]
    assert cfg.default_scope == 'mmdet' and not cfg.train_cfg.by_epoch
    checkpoint, lvis = cfg.default_hooks.checkpoint, RECIPES[name].classes == LVIS
    assert checkpoint.save_best == ('lvis/bbox_AP' if lvis else 'coco/bbox_mAP')
    assert checkpoint.rule == 'greater' and not checkpoint.by_epoch


@pytest.mark.parametrize('name', RECIPES)
def test_data(name):
    cfg = load(CONFIGS / f'{name}.py')
    loader, classes = cfg.train_dataloader, RECIPES[name].classes
    datasets = loader.dataset.get('datasets', [loader.dataset])
    boxes_only = classes == O365
    assert [d.ann_file.rsplit('_', 1)[-1] for d in datasets] == {
        80: ['train2017.json'],
        LVIS: ['train.json'],
        O365: ['train.json', 'val.json'],
    }[classes]
    for dataset in datasets:
        assert dataset.filter_cfg == dict(filter_empty_gt=True)
        size = RECIPES[name].size
        assert dataset.pipeline[:4] == [
            dict(type='evamm.LoadImageFromFile', orientation=True),
            dict(type='evamm.LoadDetAnnotations') | ({} if boxes_only else dict(with_mask=True)),
            dict(type='evamm.RandomDetFlip', prob=0.5),  # before the crop
            dict(
                type='evamm.LargeScaleJitter',
                size=size,
                scale_range=(0.1, 2.0),
                recompute_boxes=not boxes_only,
            ),
        ]
    repeated = dict(type='evamm.RepeatFactorSampler', threshold=0.001)
    endless = dict(type='InfiniteSampler', shuffle=True)
    assert loader.sampler == (repeated if classes == LVIS else endless)
    assert built(name).roi_head.with_mask != boxes_only


@pytest.mark.parametrize('name', PROTOCOLS)
def test_protocol(name):
    cfg, expected = load(CONFIGS / f'{name}.py'), PROTOCOLS[name]
    rcnn = cfg.model.test_cfg.rcnn
    soft = rcnn.get('soft_nms')
    if soft is not None:
        assert (soft.method, soft.iou_threshold, soft.class_wise) == ('linear', 0.6, True)
        soft = soft.get('score_thr', rcnn.score_thr)
    for part in ('val', 'test'):
        (resize,) = (
            step
            for step in cfg[f'{part}_dataloader'].dataset.pipeline
            if step.type == 'evamm.ResizeLongestEdge'
        )
        assert resize.size == cfg.model.data_preprocessor.pad_size
        assert cfg[f'{part}_dataloader'].dataset.test_mode
        evaluator = cfg[f'{part}_evaluator']
        found = Protocol(
            size=resize.size,
            soft=soft,
            maskness=rcnn.get('maskness_thr') == 0.5,
            score=rcnn.score_thr,
            top=rcnn.max_per_img,
            dets=evaluator.get('max_dets', 100),
        )
        assert found == expected
        assert evaluator.type.startswith('evamm.LVIS') == (expected.dets > 100)
    assert rcnn.nms == dict(type='nms', iou_threshold=0.5) and rcnn.mask_thr_binary == 0.5
    # EVA-01 is tested at a size that it was not trained at.
    giant = '_giant_' in name
    assert cfg.model.backbone.img_size == (1280 if giant and resize.size == 1536 else resize.size)
    geometric = cfg.model.backbone.get('relative_position_resize') == 'geometric'
    assert geometric == ('_giant_p16_o365_1536_' in name)


@pytest.mark.parametrize('name', PROTOCOLS)
def test_parameters(name):
    model = built(name)
    arch, classes = load(CONFIGS / f'{name}.py').model.backbone.arch, model.roi_head.num_classes
    smaller = 2 * 2 * 16 * 88 * 10 if '_1024_128xb1_' in name else 0  # ten global blocks
    expected = TRUNKS[arch] - smaller + RPN + HEADS[classes]
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


@pytest.mark.parametrize('name', RECIPES)
def test_learning_rate(name):
    cfg, recipe = load(CONFIGS / f'{name}.py'), RECIPES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    scheduler = PARAM_SCHEDULERS.build(
        cfg.param_scheduler, default_args=dict(optimizer=optimizer, end=recipe.iters)
    )
    warmup, milestones = recipe.warmup, recipe.milestones
    shares = {0: 0.001, 1: 0.001 + 0.999 / warmup, warmup // 2: 0.5005, warmup: 1.0}
    shares |= {recipe.iters - 1: 0.1 ** len(milestones)}
    for number, milestone in enumerate(milestones):
        shares |= {milestone - 1: 0.1**number, milestone: 0.1 ** (number + 1)}
    for step, share in sorted(shares.items()):
        scheduler._global_step = step - 1
        scheduler.step()
        assert optimizer.param_groups[0]['lr'] == pytest.approx(recipe.lr * share, rel=1e-12)


def official_scale(name: str, rate: float, depth: int) -> float:
    """The rule of `get_vit_lr_decay_rate` (det/detectron2/modeling/backbone/vit.py)."""
    layer = depth + 1
    if name in ('backbone.pos_embed',) or name.startswith('backbone.patch_embed.'):
        layer = 0
    elif name.startswith('backbone.blocks.'):
        layer = int(name.split('.')[2]) + 1
    return rate ** (depth + 1 - layer)


@pytest.mark.parametrize('name', RECIPES)
def test_layer_decay(name):
    cfg, recipe, model = load(CONFIGS / f'{name}.py'), RECIPES[name], built(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper.to_dict())
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    depth = model.backbone.arch.depth
    groups = wrapper.optimizer.param_groups
    assert len(groups) == depth + 2  # one weight decay for all
    seen = []
    for group in groups:
        assert group['weight_decay'] == 0.1
        for parameter in group['params']:
            key = names[id(parameter)]
            seen.append(key)
            expected = recipe.lr * official_scale(key, recipe.decay, depth)
            assert group['lr'] == pytest.approx(expected, rel=1e-12), key
    frozen = {'backbone.patch_embed.proj.weight', 'backbone.patch_embed.proj.bias'}
    assert set(names.values()) - set(seen) == (frozen if recipe.arch == G else set())
    assert len(seen) == len(set(seen))


def test_federated_loss_knows_the_images_of_every_class():
    heads = built(f'eva02_det/{CASCADE}_eva02_base_p16_1024_8xb16_lvis').roi_head.bbox_head
    counts = load(CONFIGS / '_base_' / 'models' / 'cascade_mask_rcnn_eva_lvis.py').lvis_image_counts
    # LVIS v1: 337 rare classes (1 to 10 images), 461 common (to 100), 405 frequent.
    sizes = [
        sum(low < count <= high for count in counts)
        for low, high in ((0, 10), (10, 100), (100, 10**6))
    ]
    assert sizes == [337, 461, 405] and min(counts) == 1
    for head in heads:
        assert head.loss_cls.num_sampled_classes == 50 and head.loss_cls.use_sigmoid
        assert head.loss_cls.class_weights.shape == (LVIS,)


def known(registry, part: dict) -> bool:
    with registry.switch_scope_and_registry(None) as chosen:
        return chosen.get(part['type']) is not None


@pytest.mark.parametrize('name', PROTOCOLS)
def test_the_other_parts_can_be_built(name):
    """Data sets with their pipelines, metrics, hooks; samplers read the data, so only the type."""
    cfg = load(CONFIGS / f'{name}.py')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for part in ('train', 'val', 'test'):
            loader = cfg[f'{part}_dataloader']
            for dataset in loader.dataset.get('datasets', [loader.dataset]):
                DATASETS.build(dict(dataset, lazy_init=True))
            assert known(DATA_SAMPLERS, loader.sampler)
        for part in ('val', 'test'):
            metric = METRICS.build(cfg[f'{part}_evaluator'])
            indicator = cfg.default_hooks.checkpoint.save_best
            assert indicator.startswith(metric.default_prefix)
        for hook in [*cfg.default_hooks.values(), *cfg.get('custom_hooks', [])]:
            assert known(HOOKS, hook)
        assert known(VISUALIZERS, cfg.visualizer)
