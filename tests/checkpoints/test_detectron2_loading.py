"""Official detectors loaded into models: detectors, other classes, other tasks."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from evamm.apis.model_index import prefers_averaged
from evamm.checkpoints import (
    CheckpointError,
    convert_checkpoint,
    detect_dialect,
    from_evamm,
    load_checkpoint,
    read_checkpoint,
    to_evamm,
    unwrap,
)
from evamm.models.backbones import EVAViT
from evamm.registry import MODELS

from .common import canonical, same
from .detectors import (
    SMALL,
    WIDTH,
    averaged,
    official_shapes,
    official_state,
    rules,
    small_config,
    small_detector,
)


@pytest.mark.parametrize('case', SMALL)
@pytest.mark.parametrize('prefer_ema', [True, False])
def test_official_training_file_fills_the_detector(
    case: str, prefer_ema: bool, tmp_path: Path
) -> None:
    """Weights, averaged weights and the state of the trainer in one file."""
    state = official_state(case)
    content = {'model': state, 'trainer': {'iteration': 9}, 'iteration': 9}
    content['ema_state'] = averaged(state)
    torch.save(content, tmp_path / 'model_0000009.pth')
    model = small_detector(case)
    report = load_checkpoint(
        model, tmp_path / 'model_0000009.pth', prefer_ema=prefer_ema, complete=True
    )
    assert report.dialect == 'detectron2' and not report.missing and not report.resized
    assert set(report.loaded) == set(model.state_dict())
    expected = {'rope-tables', 'class-weights'} if case != 'small_eva' else set()
    if prefer_ema:
        assert report.source == 'ema_state'
        expected |= {'pixel-statistics', 'anchors'}
    assert set(rules(report.dropped).values()) == expected
    weight = model.roi_head.bbox_head[2].fc_cls.weight
    assert torch.equal(weight, state['roi_heads.box_predictor.2.cls_score.weight'] + prefer_ema)
    # What is saved here goes back as official weights.
    back = from_evamm(to_evamm(model.state_dict()), 'detectron2')
    weights = {k: v + prefer_ema for k, v in state.items() if 'freqs' not in k and 'fed_' not in k}
    assert same(back, weights)


@pytest.mark.parametrize('prefer_ema', [True, False])
def test_load_from_of_a_run(prefer_ema: bool, tmp_path: Path) -> None:
    """Through the runner, as training starts and as ``tools/test.py`` loads."""
    pytest.importorskip('mmdet')
    from evamm.engine import EVARunner

    state = official_state('small_eva')
    content = {'model': state, 'ema_state': averaged(state), 'trainer': {}, 'iteration': 9}
    torch.save(content, tmp_path / 'file.pth')
    cfg = dict(
        model=small_config('small_eva').to_dict(),
        work_dir=str(tmp_path / 'run'),
        default_scope='mmdet',
        load_options=dict(prefer_ema=prefer_ema, complete=True),
        experiment_name=f'load_from_{prefer_ema}',
        log_level='WARNING',
    )
    runner = EVARunner.from_cfg(Config(cfg))
    runner.load_checkpoint(str(tmp_path / 'file.pth'))
    weight = runner.model.rpn_head.rpn_cls.weight
    wanted = state['proposal_generator.rpn_head.objectness_logits.weight'] + prefer_ema
    assert torch.equal(weight, wanted.to(weight.device))
    with pytest.raises(CheckpointError, match='Give it as load_from'):
        runner.resume(str(tmp_path / 'file.pth'))


def test_published_figures_belong_to_the_weights_that_are_taken() -> None:
    """``use_ema_weights_for_eval_only`` is set for the runs from Objects365 of EVA-02 alone."""
    averaged_files = {f'eva02_L_{kind}_sys_o365.pth' for kind in ('coco_det', 'coco_seg', 'lvis')}
    files = {'eva_coco_det.pth', 'eva_coco_seg.pth', 'eva_lvis.pth', 'eva02_L_lvis_sys.pth'}
    files |= {f'eva02_{size}_{data}_bsl.pth' for size in 'BL' for data in ('coco', 'lvis')}
    files |= {'eva02_B_coco_sys.pth', 'eva02_L_coco_sys.pth'}
    assert {file for file in files | averaged_files if prefers_averaged(file)} == averaged_files


def test_run_without_averaging_has_no_averaged_weights() -> None:
    """detectron2 leaves an empty entry behind then."""
    assert unwrap({'model': {'a': torch.ones(1)}, 'ema_state': {}})[1] == 'model'


def test_other_classes_start_fresh_and_boxes_without_masks_too(tmp_path: Path) -> None:
    """Objects365 to COCO, as ``load_from`` of the recipes."""
    case = 'small_eva02_lvis'
    state = official_state(case)
    boxes_only = {
        name: value
        for name, value in state.items()
        if 'mask_head' not in name and 'fed_loss' not in name
    }
    torch.save({'model': boxes_only}, tmp_path / 'o365.pth')
    model = small_detector(case, classes=3)
    before = copy.deepcopy(model.state_dict())
    with pytest.warns(UserWarning) as caught:
        report = load_checkpoint(model, tmp_path / 'o365.pth')
    texts = [str(item.message) for item in caught]
    assert sum('it detects 5 classes, the model 3' in text for text in texts) == 1
    assert sum('no mask head' in text for text in texts) == 1 and len(texts) == 2
    fresh = rules(report.missing)
    class_layers = {
        f'roi_head.bbox_head.{stage}.fc_cls.{kind}'
        for stage in range(3)
        for kind in ('weight', 'bias')
    }
    assert {name for name, rule in fresh.items() if rule == 'class-count'} == class_layers
    others = set(fresh) - class_layers
    assert others == {name for name in before if 'mask_head' in name}
    assert {fresh[name] for name in others} == {'no-mask-head'}
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in fresh)
    assert torch.equal(
        after['roi_head.bbox_head.1.fc_reg.weight'],
        state['roi_heads.box_predictor.1.bbox_pred.weight'],
    )
    message = r'22 tensors .* missing roi_head\.bbox_head\.0\.fc_cls'
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, tmp_path / 'o365.pth', complete=True)  # as for testing


def test_masks_of_other_classes_start_fresh_too(tmp_path: Path) -> None:
    torch.save({'model': official_state('small_eva')}, tmp_path / 'file.pth')
    model = small_detector('small_eva', classes=7)
    with pytest.warns(UserWarning, match=r'fc_cls, roi_head\.mask_head\.conv_logits\) are left'):
        report = load_checkpoint(model, tmp_path / 'file.pth')
    assert rules(report.missing)['roi_head.mask_head.conv_logits.bias'] == 'class-count'
    assert len(report.missing) == 8


def test_a_part_of_a_mask_head_is_no_mask_head(tmp_path: Path) -> None:
    state = official_state('small_eva')
    del state['roi_heads.mask_head.mask_fcn2.norm.weight']
    torch.save({'model': state}, tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match=r'missing roi_head\.mask_head\.convs\.1\.ln\.weight'):
        load_checkpoint(small_detector('small_eva'), tmp_path / 'file.pth')


@pytest.mark.parametrize(
    'name', ['roi_heads.box_head.1.conv2.weight', 'backbone.simfp_4.1.norm.bias']
)
def test_incomplete_detectors_are_not_converted(name: str, tmp_path: Path) -> None:
    state = official_state('small_eva')
    del state[name]
    torch.save({'model': state}, tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match='1 tensors are missing'):
        convert_checkpoint(tmp_path / 'file.pth', tmp_path / 'out.pth', 'evamm')


def test_class_layers_of_another_width_are_no_other_classes(tmp_path: Path) -> None:
    state = official_state('small_eva')
    name = 'roi_heads.box_predictor.0.cls_score.weight'
    state[name] = torch.zeros(8, 23)
    torch.save({'model': state}, tmp_path / 'file.pth')
    with pytest.raises(
        CheckpointError, match=r'fc_cls\.weight is \(8, 23\) in the file and \(6, 24\)'
    ):
        load_checkpoint(small_detector('small_eva'), tmp_path / 'file.pth')


def test_masks_are_left_out_of_a_detector_of_boxes(tmp_path: Path) -> None:
    torch.save({'model': official_state('small_eva')}, tmp_path / 'file.pth')
    model = small_detector('small_eva', masks=False)
    report = load_checkpoint(model, tmp_path / 'file.pth', complete=True)
    found = rules(report.dropped)
    assert set(found.values()) == {'other-part'} and all('mask_head' in name for name in found)


@pytest.mark.parametrize('kind', ['mim', 'classifier'])
def test_detector_starts_from_a_pretrained_trunk(kind: str, tmp_path: Path) -> None:
    """``EVA02_*_p14to16.pt``: the pyramid and the heads start fresh, the positions stay 14 x 14."""
    state = canonical('base', kind, img_size=224, patch_size=16)
    official = {'module': from_evamm(state, 'official', head_dims=32)}
    torch.save(official, tmp_path / 'file.pt')
    model = small_detector('small_eva02_lvis')
    report = load_checkpoint(model, tmp_path / 'file.pt')
    assert not report.resized
    assert torch.equal(model.backbone.pos_embed, state['pos_embed'])
    parts = {name.split('.')[0] for name in rules(report.missing)}
    assert parts == {'neck', 'rpn_head', 'roi_head'}
    assert rules(report.dropped)['cls_token'] == 'class-token'


# ---- other tasks --------------------------------------------------------------------------------


def test_trunk_of_a_detector_for_other_tasks(tmp_path: Path) -> None:
    state = official_state('small_eva02_lvis')
    torch.save({'model': state}, tmp_path / 'det.pth')
    with pytest.raises(CheckpointError, match=r"a detector .*'timm' has no names.*--trunk-only"):
        convert_checkpoint(tmp_path / 'det.pth', tmp_path / 'out.pth', 'timm')
    for to in ('timm', 'official', 'evamm', 'detectron2'):
        with pytest.warns(UserWarning, match='no class token'):
            report = convert_checkpoint(
                tmp_path / 'det.pth', tmp_path / f'{to}.pth', to, trunk_only=True
            )
        assert 'roi_head.mask_head.upsample.bias' in rules(report.dropped)
        found = read_checkpoint(tmp_path / f'{to}.pth')
        assert detect_dialect(found.state_dict) == to
        model = EVAViT(
            dict(embed_dims=WIDTH, depth=2, num_heads=2, ffn_norm=True), patch_size=16, img_size=224
        )
        with pytest.warns(UserWarning):
            report = load_checkpoint(model, found)
        assert rules(report.missing) == {
            'cls_token': 'class-token',
            'fc_norm.weight': 'no-norm',
            'fc_norm.bias': 'no-norm',
        }
        key = state['backbone.net.blocks.1.attn.k_proj.weight']
        assert torch.equal(model.blocks[1].attn.qkv.weight[WIDTH : 2 * WIDTH], key)


def test_trunk_of_a_detector_inside_another_model(tmp_path: Path) -> None:
    """``init_cfg`` of a backbone, for a dense task of another kind."""
    state = official_state('small_eva02_lvis')
    torch.save({'model': state}, tmp_path / 'det.pth')
    cfg = small_config('small_eva02_lvis').backbone
    cfg.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'det.pth'))
    trunk = MODELS.build(cfg)
    trunk.init_weights()
    assert same(
        dict(trunk.state_dict()),
        {
            name: value
            for name, value in to_evamm(state).items()
            if name.startswith(('blocks', 'pos_embed', 'patch_embed'))
        },
    )


def test_relative_positions_stay_with_detectors(tmp_path: Path) -> None:
    torch.save({'model': official_state('small_eva')}, tmp_path / 'det.pth')
    with pytest.raises(CheckpointError, match='relative positions.*which change the output'):
        convert_checkpoint(tmp_path / 'det.pth', tmp_path / 'out.pth', 'timm', trunk_only=True)
    model = EVAViT(
        dict(embed_dims=WIDTH, depth=2, num_heads=2, ffn='mlp', ffn_hidden_dims=209, rope=False),
        patch_size=16,
    )
    with pytest.raises(CheckpointError, match='build the trunk with relative_position=True'):
        load_checkpoint(model, tmp_path / 'det.pth')


def test_names_of_a_detector_trained_here(tmp_path: Path) -> None:
    """A run's checkpoint, `module.` and compiled blocks included, becomes an official file."""
    model = small_detector('small_eva')
    state = {f'module.{name}': value for name, value in model.state_dict().items()}
    torch.save({'state_dict': state, 'meta': {'epoch': 3}}, tmp_path / 'epoch_3.pth')
    convert_checkpoint(tmp_path / 'epoch_3.pth', tmp_path / 'out.pth', 'detectron2')
    found = read_checkpoint(tmp_path / 'out.pth').state_dict
    assert {name: tuple(value.shape) for name, value in found.items()} == official_shapes(
        'small_eva'
    )
