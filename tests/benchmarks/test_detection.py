"""The comparison of detectors compares equal work. mmdet's project is not installed: a stand-in."""

from pathlib import Path

import pytest
import torch

pytest.importorskip('mmdet')

from benchmarks import detection, detectors


@pytest.fixture
def args() -> object:
    return detection.parse_args(
        '--mmdet-projects none --img-size 64 --window 2 --width 64 --depth 4 --batch 2 '
        '--proposals 10 --samples 8 --objects 2 --repeats 1'.split()
    )


def test_a_clone_is_needed(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match='give a clone of'):
        detection.import_projects(tmp_path)


def test_names_of_the_peer_are_all_translated(args: object) -> None:
    """Each tensor of evamm's trunk, pyramid and heads has one of its own in mmdet's layout."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    config = detectors.detector_config(
        'detector', detectors.trunk_config('vit', args), 'evamm.LayerNorm2d', args
    )
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        state = MODELS.build(config).state_dict()
    renamed = detectors.to_mmdet(state)
    assert len(renamed) == len(state)
    assert not [name for name in renamed if 'levels' in name or '.ln.' in name]
    assert {
        'backbone.blocks.3.attn.rel_pos_h',
        'neck.fpn1.3.weight',
        'neck.fpn2.0.bias',
        'neck.lateral_convs.3.norm_layer.weight',
        'neck.fpn_convs.0.conv.weight',
        'roi_head.bbox_head.shared_convs.3.norm_layer.bias',
        'roi_head.mask_head.convs.0.norm_layer.weight',
    } <= set(renamed)


def test_one_global_block_in_four(args: object) -> None:
    args.depth = 12
    assert detectors.windowed(args) == [0, 1, 3, 4, 6, 7, 9, 10]


def test_jobs_of_both_kinds(args: object) -> None:
    from mmdet.registry import MODELS

    base = detectors.trunk_config('eva02', args)
    model = detectors.Maps(*(MODELS.build(base[name]) for name in ('backbone', 'neck')))
    images, samples = detectors.batch_of(args)
    before = model.neck.levels[0].lateral.conv.weight.detach().clone()
    detection.job_of('forward', model, images, samples, torch.float32)()
    assert torch.equal(model.neck.levels[0].lateral.conv.weight, before)
    detection.job_of('train', model, images, samples, torch.float32)()
    assert not torch.equal(model.neck.levels[0].lateral.conv.weight, before)


def test_the_cascades_are_those_of_the_libraries(args: object) -> None:
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    base = detectors.trunk_config('eva02', args)
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        ours = MODELS.build(detectors.cascade_config(base, args))
        theirs = MODELS.build(detectors.detector_config('cascade', base, 'LN', args))
    assert type(ours.roi_head).__name__ == 'ViTDetCascadeRoIHead'
    assert type(theirs.roi_head).__name__ == 'CascadeRoIHead'
    for model in (ours, theirs):
        assert [head.num_classes for head in model.roi_head.bbox_head] == [detectors.CLASSES] * 3
        assert model.train_cfg.rcnn[0].sampler.num == args.samples
        assert model.test_cfg.rpn.max_per_img == args.proposals


def test_unequal_work_is_not_timed(args: object) -> None:
    from mmdet.registry import MODELS

    base = detectors.trunk_config('vit', args)
    models = {}
    for name in ('evamm', 'mmdet'):
        torch.manual_seed(0)
        models[name] = detectors.Maps(*(MODELS.build(base[key]) for key in ('backbone', 'neck')))
        models[name].backbone.init_weights()
    images, samples = detectors.batch_of(args)
    assert detection.check_equal(models, images, samples) == 0
    with torch.no_grad():
        models['mmdet'].backbone.blocks[0].attn.rel_pos_h[1] += 1
    with pytest.raises(RuntimeError, match='does not compute what evamm computes'):
        detection.check_equal(models, images, samples)
