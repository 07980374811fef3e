"""Files of the official detectors: every name, both ways, their tables, and reading them safely."""

import collections
import sys
import types
import typing
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from evamm.checkpoints import (
    CheckpointError,
    canonicalize,
    convert_checkpoint,
    detect_dialect,
    fit_state_dict,
    from_evamm,
    read_checkpoint,
    to_evamm,
)
from evamm.checkpoints.detectron2 import RopeLayout
from evamm.checkpoints.rope_buffers import official_rope_tables

from .common import same
from .detectors import ROOT, SMALL, build, official_shapes, official_state, rules, small_detector

FULL = (
    ('eva_coco_det.pth', 'eva_det/cascade_mask_rcnn_eva_giant_p16_o365_1280_64xb1_coco.py'),
    # Evaluated on larger images with the tables of the smaller ones.
    ('eva_coco_det.pth', 'eva_det/cascade_mask_rcnn_eva_giant_p16_o365_1536_coco_det.py'),
    ('eva02_B_coco_bsl.pth', 'eva02_det/cascade_mask_rcnn_eva02_base_p16_1024_8xb16_coco.py'),
    ('eva02_B_coco_sys.pth', 'eva02_det/cascade_mask_rcnn_eva02_base_p16_1536_16xb8_coco.py'),
    (
        'eva02_L_m38m_to_o365.pth',
        'eva02_det/cascade_rcnn_eva02_large_p16_m38m_1536_40xb4_o365.py',
    ),
    (
        'eva02_L_lvis_sys_o365.pth',
        'eva02_det/cascade_mask_rcnn_eva02_large_p16_o365_1536_8xb8_lvis.py',
    ),
)


@pytest.mark.parametrize('case, config', FULL)
def test_released_detectors_fill_the_models_of_their_configs(case: str, config: str) -> None:
    """At full size, on the meta device: one to one, nothing resized, nothing fresh."""
    cfg = Config.fromfile(ROOT / 'configs' / config).model
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


def test_equal_shapes_are_not_mixed_up() -> None:
    """Layers of one shape in a row, in the order of the forward pass."""
    found = to_evamm(official_state('small_eva'))
    state = official_state('small_eva')
    for theirs, ours in (
        ('backbone.simfp_2.0.bias', 'neck.levels.0.resize.0.bias'),
        ('backbone.simfp_2.1.bias', 'neck.levels.0.resize.1.bias'),
        ('backbone.simfp_2.3.bias', 'neck.levels.0.resize.3.bias'),
        ('backbone.simfp_2.4.norm.weight', 'neck.levels.0.lateral.norm.weight'),
        ('backbone.simfp_2.5.norm.weight', 'neck.levels.0.output.norm.weight'),
        ('backbone.simfp_3.2.norm.bias', 'neck.levels.1.output.norm.bias'),
        ('backbone.simfp_4.0.norm.bias', 'neck.levels.2.lateral.norm.bias'),
        ('backbone.simfp_5.1.norm.bias', 'neck.levels.3.lateral.norm.bias'),
        ('backbone.simfp_5.2.weight', 'neck.levels.3.output.conv.weight'),
        ('proposal_generator.rpn_head.conv.conv0.weight', 'rpn_head.rpn_conv.0.conv.weight'),
        ('proposal_generator.rpn_head.conv.conv1.bias', 'rpn_head.rpn_conv.1.conv.bias'),
        *(
            (f'{stage}.conv{index + 1}.{old}', f'{home}.shared_convs.{index}.{new}')
            for stage, home in (
                ('roi_heads.box_head.0', 'roi_head.bbox_head.0'),
                ('roi_heads.box_head.2', 'roi_head.bbox_head.2'),
            )
            for index in range(4)
            for old, new in (('weight', 'conv.weight'), ('norm.bias', 'ln.bias'))
        ),
        ('roi_heads.box_head.1.fc1.weight', 'roi_head.bbox_head.1.shared_fcs.0.weight'),
        ('roi_heads.box_predictor.1.bbox_pred.bias', 'roi_head.bbox_head.1.fc_reg.bias'),
        ('roi_heads.mask_head.mask_fcn1.weight', 'roi_head.mask_head.convs.0.conv.weight'),
        ('roi_heads.mask_head.mask_fcn4.weight', 'roi_head.mask_head.convs.3.conv.weight'),
        ('roi_heads.mask_head.mask_fcn3.norm.bias', 'roi_head.mask_head.convs.2.ln.bias'),
        ('roi_heads.mask_head.deconv.weight', 'roi_head.mask_head.upsample.weight'),
    ):
        assert torch.equal(found[ours], state[theirs]), ours


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
        ('detectron2', 'b.safetensors'),
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
    tables = layout.tables(torch.float32)
    assert len({table.data_ptr() for table in tables.values()}) == len(tables) == 8  # safetensors
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
