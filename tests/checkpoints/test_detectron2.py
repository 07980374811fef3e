"""Files of the official detectors: every name, both ways, into every detector that can use them.

``tests/data/golden/detectron2_names.json`` lists the names and shapes of the official models.
"""

import collections
import copy
import json
import sys
import types
import typing
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from evamm.checkpoints import (
    CheckpointError,
    canonicalize,
    convert_checkpoint,
    detect_dialect,
    fit_state_dict,
    from_evamm,
    load_checkpoint,
    read_checkpoint,
    to_evamm,
)
from evamm.checkpoints.detectron2 import RopeLayout
from evamm.checkpoints.rope_buffers import official_rope_tables
from evamm.models.backbones import EVAViT

from .common import canonical, fill, same

ROOT = Path(__file__).parents[2]
NAMES = json.loads((ROOT / 'tests/data/golden/detectron2_names.json').read_text())
WIDTH, CHANNELS = 64, 16  # of the small detectors


def official_shapes(case: str) -> dict[str, tuple[int, ...]]:
    """Name -> shape; ``#`` stands for the numbers of blocks or stages that follow."""
    shapes = {}
    for name, shape, *numbers in NAMES[case]:
        for part in numbers[0].split(',') if numbers else ['']:
            first, _, last = part.partition('-')
            for number in range(int(first), int(last or first) + 1) if part else ['']:
                shapes[name.replace('#', str(number))] = tuple(shape)
    return shapes


def official_state(case: str, seed: int = 0) -> dict[str, Tensor]:
    """Random weights and true RoPE tables."""
    state = fill(official_shapes(case), seed)
    for name, value in state.items():
        if 'freqs_' in name:
            side = round(len(value) ** 0.5)
            cos, sin = official_rope_tables((side, side), value.shape[1])
            state[name] = (cos if name.endswith('cos') else sin).clone()
    return state


def averaged(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """``ema_state``: parameters and buffers, shared ones once, also those that are not saved."""
    out = {name: value + 1 for name, value in state.items() if 'freqs' not in name}
    out |= {name: value for name, value in state.items() if '.rope_' in name}
    out |= {'pixel_mean': torch.ones(3, 1, 1), 'pixel_std': torch.ones(3, 1, 1)}
    for level in range(5):
        out[f'proposal_generator.anchor_generator.cell_anchors.{level}'] = torch.ones(3, 4)
    return out


def small_detector(case: str, *, classes: int = 5, masks: bool = True) -> nn.Module:
    """The base config of the recipes with the widths of a small official detector."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/cascade_mask_rcnn_eva.py').model
    arch = dict(embed_dims=WIDTH, depth=2, num_heads=2)
    if case == 'small_eva':
        arch |= dict(ffn='mlp', ffn_hidden_dims=209, rope=False)
    else:
        arch |= dict(ffn_norm=True)
    cfg.backbone.update(arch=arch, img_size=128, window_size=4, window_blocks=[0])
    cfg.backbone.relative_position = case == 'small_eva'
    cfg.data_preprocessor.pad_size = 128
    cfg.neck.update(in_channels=WIDTH, out_channels=CHANNELS)
    cfg.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    narrow = dict(in_channels=CHANNELS, conv_out_channels=CHANNELS, num_classes=classes)
    cfg.roi_head.bbox_head.update(narrow, fc_out_channels=24)
    cfg.roi_head.mask_head.update(narrow)
    if not masks:
        del cfg.roi_head['mask_head']
    return build(cfg)


def build(cfg: ConfigDict) -> nn.Module:
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS as MMDET

    with DefaultScope.overwrite_default_scope('mmdet'):
        return MMDET.build(cfg)


def rules(entries: list[tuple[str, str, str]]) -> dict[str, str]:
    return {name: rule for name, rule, _ in entries}


SMALL = ('small_eva', 'small_eva02_lvis')


# ---- names --------------------------------------------------------------------------------------

FULL = {
    'eva_coco_det.pth': 'eva_det/cascade_mask_rcnn_eva_giant_p16_o365_1280_64xb1_coco.py',
    'eva02_B_coco_bsl.pth': 'eva02_det/cascade_mask_rcnn_eva02_base_p16_1024_8xb16_coco.py',
    'eva02_B_coco_sys.pth': 'eva02_det/cascade_mask_rcnn_eva02_base_p16_1536_16xb8_coco.py',
    'eva02_L_m38m_to_o365.pth': 'eva02_det/cascade_rcnn_eva02_large_p16_m38m_1536_40xb4_o365.py',
    'eva02_L_lvis_sys_o365.pth': (
        'eva02_det/cascade_mask_rcnn_eva02_large_p16_o365_1536_8xb8_lvis.py'
    ),
}


@pytest.mark.parametrize('case', FULL)
def test_released_detectors_fill_the_models_of_their_configs(case: str) -> None:
    """At full size, on the meta device: one to one, nothing resized, nothing fresh."""
    cfg = Config.fromfile(ROOT / 'configs' / FULL[case]).model
    with torch.device('meta'):
        model = build(cfg)
        state = {name: torch.empty(shape) for name, shape in official_shapes(case).items()}
    found = canonicalize(state)
    assert found.dialect == detect_dialect(state) == 'detectron2'
    target = {name: value.shape for name, value in model.state_dict().items()}
    fitted, report = fit_state_dict(found.state_dict, target, complete=True)
    assert set(fitted) == set(target) and not report.resized and not report.missing
    assert set(rules(report.dropped).values()) <= {'class-weights'}
    tables = {name for name in state if '.freqs_' in name}
    assert set(rules(found.dropped)) == tables
    parameters = sum(value.numel() for value in model.parameters())
    others = tables | {name for name in state if 'fed_loss' in name}
    assert parameters == sum(state[name].numel() for name in state if name not in others)
    back = from_evamm(found.state_dict, 'detectron2')
    assert {name: value.shape for name, value in back.items()} == {
        name: value.shape for name, value in state.items() if name not in tables
    }


@pytest.mark.parametrize('case', SMALL)
def test_there_and_back_gives_the_same_bits(case: str, tmp_path: Path) -> None:
    """RoPE tables and class weights included, through files of both kinds."""
    state = official_state(case)
    found = canonicalize(state)
    assert same(from_evamm(found.state_dict, 'detectron2', rope_layout=found.rope_layout), state)
    torch.save({'model': state}, tmp_path / 'start.pth')
    previous = 'start.pth'
    for to, file in (
        ('evamm', 'a.pth'),
        ('detectron2', 'b.pth'),
        ('evamm', 'c.safetensors'),
        ('detectron2', 'd.pth'),
    ):
        convert_checkpoint(tmp_path / previous, tmp_path / file, to)
        previous = file
    assert list(torch.load(tmp_path / previous)) == ['model']
    assert same(read_checkpoint(tmp_path / previous).state_dict, state)


def test_unknown_tensors_of_the_file_are_errors() -> None:
    """Whatever a fork adds must not be overlooked."""
    model = small_detector('small_eva02_lvis')
    target = {name: value.shape for name, value in model.state_dict().items()}
    for name in (
        'backbone.top_block.weight',
        'backbone.simfp_6.0.weight',
        'backbone.net.blocks.1.residual.conv1.weight',
        'backbone.net.registers',
        'proposal_generator.centerness.weight',
        'roi_heads.box_head.0.conv5.weight',
        'roi_heads.box_predictor.3.cls_score.weight',
        'roi_heads.keypoint_head.conv1.weight',
    ):
        state = official_state('small_eva02_lvis') | {name: torch.zeros(1)}
        with pytest.raises(CheckpointError, match=r'1 tensors do not fit.*unexpected'):
            fit_state_dict(to_evamm(state), target)


# ---- loading ------------------------------------------------------------------------------------


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


def test_run_without_averaging_has_no_averaged_weights() -> None:
    """detectron2 leaves an empty entry behind then."""
    from evamm.checkpoints import unwrap

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
    with pytest.raises(CheckpointError, match='tensors are missing'):
        del state['roi_heads.box_head.1.conv2.weight']
        torch.save({'model': state}, tmp_path / 'file.pth')
        convert_checkpoint(tmp_path / 'file.pth', tmp_path / 'out.pth', 'evamm')


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


# ---- tables and safety --------------------------------------------------------------------------


def test_tables_with_other_angles_are_named() -> None:
    """A detector that was trained without stretching them, or for another reference grid."""
    state = official_state('small_eva02_lvis')
    name = 'backbone.net.rope_glb.freqs_cos'
    state[name] = official_rope_tables((8, 8), 32, reference=14)[0]
    with pytest.warns(UserWarning, match=rf'{name} of the file hold other angles'):
        to_evamm(state)


def test_rounded_tables_are_taken_for_what_they_are(recwarn: pytest.WarningsRecorder) -> None:
    """Averaging 70,000 times leaves 2e-4, storing in bfloat16 4e-3."""
    state = official_state('small_eva02_lvis')
    to_evamm({name: value.bfloat16() for name, value in state.items()})
    to_evamm({name: value * 1.0002 for name, value in state.items()})
    assert not recwarn


def test_layout_of_the_tables_survives_as_text() -> None:
    layout = RopeLayout.read(official_state('small_eva02_lvis'))
    assert layout == RopeLayout(window=4, grid=8, head_dims=32, blocks=(True, False))
    assert RopeLayout.from_meta(layout.to_meta()) == layout
    for other in (None, '', 'window=4', layout.to_meta() + ' and more', 4):
        assert RopeLayout.from_meta(other) is None


def omegaconf_list(monkeypatch: pytest.MonkeyPatch, values: list) -> object:
    """What detectron2's lazy configs make of ``betas=(0.9, 0.999)``, without OmegaConf."""
    kinds = {}
    for path in (
        'omegaconf.listconfig.ListConfig',
        'omegaconf.base.ContainerMetadata',
        'omegaconf.base.Metadata',
        'omegaconf.nodes.AnyNode',
    ):
        module, _, name = path.rpartition('.')
        for home in ('omegaconf', module):
            if home not in sys.modules:
                monkeypatch.setitem(sys.modules, home, types.ModuleType(home))
        kinds[name] = type(name, (), {'__module__': module})
        setattr(sys.modules[module], name, kinds[name])

    def make(kind: str, **fields: object) -> object:
        out = kinds[kind]()
        out.__dict__.update(fields)
        return out

    what = dict(ref_type=typing.Any, object_type=list, key_type=int, flags={'allow_objects': True})
    return make(
        'ListConfig',
        _metadata=make('ContainerMetadata', resolver_cache=collections.defaultdict(dict), **what),
        _content=[make('AnyNode', _metadata=make('Metadata', **what), _val=v) for v in values],
    )


def test_settings_of_the_optimizer_are_read_as_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = official_state('small_eva')
    groups = [{'lr': 1e-4, 'betas': omegaconf_list(monkeypatch, [0.9, 0.999])}]
    trainer = {'iteration': 9, 'optimizer': {'state': {}, 'param_groups': groups}}
    torch.save({'model': state, 'trainer': trainer}, tmp_path / 'file.pth')
    assert b'omegaconf.listconfig' in (tmp_path / 'file.pth').read_bytes()
    monkeypatch.undo()
    assert same(read_checkpoint(tmp_path / 'file.pth').state_dict, state)
    assert 'omegaconf' not in sys.modules


class Instances:
    """Stands for an object of detectron2."""


def test_other_objects_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Instances, '__module__', 'detectron2.structures.instances')
    home = types.ModuleType('detectron2.structures.instances')
    home.Instances = Instances
    for name in ('detectron2', 'detectron2.structures', home.__name__):
        monkeypatch.setitem(sys.modules, name, home)
    torch.save({'model': official_state('small_eva'), 'x': Instances()}, tmp_path / 'file.pth')
    with pytest.raises(CheckpointError, match=r'detectron2\.structures\.instances\.Instances'):
        read_checkpoint(tmp_path / 'file.pth')
