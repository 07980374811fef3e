"""Pre-training from cached features: the recipe of the same name, and what its header promises."""

import ast
import re

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from evamm.datasets.feature_cache import CacheMeta, FeatureCacheError
from evamm.engine.runner.preflight import DatasetNotFoundError, check_feature_caches
from evamm.models.flops import count_macs
from evamm.registry import DATASETS

from .common import CONFIGS, build_on_meta, load

RECIPE = CONFIGS / 'eva02' / 'eva02_tiny_p14_mim_40xb100_in21k.py'
CACHED = RECIPE.with_stem(RECIPE.stem + '_cached')
IMAGES = 14_200_000
MASKED = 104.4  # patches of a mask on average


def test_only_the_source_of_targets_and_crops_differs():
    live, cached = load(RECIPE).to_dict(), load(CACHED).to_dict()
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr', 'randomness'):
        assert live[key] == cached[key], key
    assert cached['teacher'] == live['model'].pop('teacher')
    assert cached['model'].pop('teacher') is None
    assert cached['model']['head'].pop('out_channels') == cached['teacher']['embed_dims']
    assert live['model'] == cached['model']
    pipelines = [cfg['train_dataloader']['dataset'].pop('pipeline') for cfg in (live, cached)]
    assert live['train_dataloader'] == cached['train_dataloader']
    load_image, flip, crop, mask, pack = pipelines[0]
    first, crops, second, read, last = pipelines[1]
    assert [first, second, last] == [load_image, mask, pack]
    assert crops['transforms'] == [flip, crop]
    assert read['type'] == 'evamm.LoadTeacherFeatures'


def test_header_is_right_about_disk_and_speed():
    cfg = load(CACHED)
    header = ' '.join(ast.get_docstring(ast.parse(CACHED.read_text())).split())
    sizes = {}
    views = cfg.train_dataloader.dataset.pipeline[1].num_views
    for count in (views, 1):
        for dtype in ('int8', 'float16'):
            meta = CacheMeta(IMAGES, 256, 1024, count, 0, '', '', '', dtype, 1000, '')
            sizes[count, dtype] = f'{meta.nbytes / 1e12:.1f}'
    assert f'{sizes[views, "int8"]} TB as int8, {sizes[views, "float16"]} TB as float16' in header
    assert f'{sizes[1, "int8"]} and {sizes[1, "float16"]} TB' in header
    model = build_on_meta(cfg)
    teacher = count_macs(cfg.teacher.arch, 224) + 256 * 1408 * 1024
    student = 3 * (count_macs('eva02-tiny', 224) + MASKED * model.lm_head.weight.numel())
    with_teacher, without, times = re.search(
        r'teacher is ([\d.]+) G.*without it ([\d.]+): (\d+) times less', header
    ).groups()
    assert (with_teacher, without) == (f'{(teacher + student) / 1e9:.1f}', f'{student / 1e9:.1f}')
    assert times == f'{(teacher + student) / student:.0f}'


def test_a_missing_cache_is_named_at_the_start_and_not_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = load(CACHED)
    assert build_on_meta(cfg).teacher is None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, lazy_init=True))
    with pytest.raises(DatasetNotFoundError) as error:
        check_feature_caches(cfg, ('train_dataloader',))
    message = str(error.value)
    assert message.startswith('data/imagenet21k_features does not exist')
    assert 'train_dataloader.dataset.pipeline.3.cache needs it' in message
    assert 'tools/cache_teacher.py' in message
    with pytest.raises(FeatureCacheError, match='no feature cache here'):
        _ = dataset.pipeline.transforms[3].cache
    (tmp_path / 'data/imagenet21k_features').mkdir(parents=True)
    check_feature_caches(cfg, ('train_dataloader',))  # what is in it is the pipeline's matter
    unset = Config(dict(train_dataloader=cfg.train_dataloader.to_dict()))
    unset.train_dataloader.dataset.pipeline[3].cache = None
    check_feature_caches(unset, ('train_dataloader',))
