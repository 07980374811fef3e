import logging

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

import evamm.registry  # noqa: F401
from evamm.engine import LayerDecayOptimWrapperConstructor
from evamm.engine.errors import ConfigError
from evamm.models import EVAViT

RATE = 0.5
WD = 0.1
# depth 2: layers 0 (embeddings), 1, 2 (blocks), 3 (the rest); scale = 0.5 ** (3 - layer)
TRUNK = {
    'cls_token': (0.125, 'skip'),
    'pos_embed': (0.125, 'skip'),
    'patch_embed.proj.weight': (0.125, 'matrix'),
    'patch_embed.proj.bias': (0.125, 'vector'),
    'blocks.0.norm1.weight': (0.25, 'vector'),
    'blocks.0.attn.q_bias': (0.25, 'vector'),
    'blocks.0.attn.qkv.weight': (0.25, 'matrix'),
    'blocks.0.mlp.w12.bias': (0.25, 'vector'),
    'blocks.1.norm2.bias': (0.5, 'vector'),
    'blocks.1.mlp.w3.weight': (0.5, 'matrix'),
    'fc_norm.weight': (1.0, 'vector'),
}
HEAD = {'head.fc.weight': (1.0, 'matrix'), 'head.fc.bias': (1.0, 'vector')}


def trunk(**kwargs):
    arch = {'embed_dims': 16, 'depth': 2, 'num_heads': 2, 'ffn_hidden_dims': 24, 'qkv_bias': 'qv'}
    return EVAViT(arch, img_size=28, patch_size=14, **kwargs)


class Classifier(nn.Module):
    """Forwards `get_layer_depth` to its backbone, as ImageClassifier does."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Module()
        self.head.fc = nn.Linear(16, 3)

    def get_layer_depth(self, param_name):
        return self.backbone.get_layer_depth(param_name, 'backbone.')


class Segmentor(nn.Module):
    """A backbone and the parameter names of a Mask2Former head."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.decode_head = nn.Module()
        self.decode_head.query_embed = nn.Embedding(2, 4)
        self.decode_head.query_feat = nn.Embedding(2, 4)
        self.decode_head.level_embed = nn.Embedding(2, 4)
        self.decode_head.cls_embed = nn.Linear(4, 3)
        self.decode_head.mask_embed = nn.Sequential(nn.Linear(4, 4))
        self.decode_head.pixel_decoder = nn.Module()
        self.decode_head.pixel_decoder.level_encoding = nn.Embedding(2, 4)


class Detector(nn.Module):
    """A simple feature pyramid around the backbone and a residual convolution in a block."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.backbone.blocks[0].residual = nn.Conv2d(4, 4, 1)
        self.neck = nn.Conv2d(4, 4, 1)
        self.mask_head = nn.Conv2d(4, 4, 1)


def build(model, **paramwise):
    paramwise = {'layer_decay_rate': RATE, **paramwise}
    constructor = LayerDecayOptimWrapperConstructor(
        {'optimizer': {'type': 'AdamW', 'lr': 0.01, 'weight_decay': WD}}, paramwise
    )
    return constructor(model).optimizer


def table(model, optimizer):
    """{name: (lr scale, weight decay)} of what the optimizer will really do."""
    names = {id(param): name for name, param in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        assert group['lr'] == pytest.approx(0.01 * group['lr_scale'])
        for param in group['params']:
            assert names[id(param)] not in found
            found[names[id(param)]] = (group['lr_scale'], group['weight_decay'])
    return found


def check(found, expected):
    for name, values in expected.items():
        assert found[name] == values, name


def test_classification():
    model = Classifier(trunk())
    found = table(model, build(model, rule='classification'))
    decay = {'skip': 0.0, 'matrix': WD, 'vector': 0.0}
    check(found, {f'backbone.{n}': (scale, decay[kind]) for n, (scale, kind) in TRUNK.items()})
    check(found, {name: (scale, decay[kind]) for name, (scale, kind) in HEAD.items()})
    assert len(found) == len(list(model.parameters()))


def test_mask_token_of_pretraining_is_a_decayed_embedding():
    model = trunk(with_mask_token=True, weight_init='pretrain')
    assert table(model, build(model))['mask_token'] == (0.125, WD)


def test_segmentation_decays_embeddings_and_files_head_embeddings_under_layer_0():
    model = Segmentor(trunk(out_type='featmap'))
    found = table(model, build(model, rule='segmentation'))
    decay = {'skip': WD, 'matrix': WD, 'vector': 0.0}
    expected = {f'backbone.{n}': (scale, decay[kind]) for n, (scale, kind) in TRUNK.items()}
    del expected['backbone.fc_norm.weight']
    check(found, expected)
    head = {
        'query_embed.weight': (0.125, WD),
        'query_feat.weight': (0.125, WD),
        'level_embed.weight': (0.125, WD),
        'cls_embed.weight': (0.125, WD),
        'cls_embed.bias': (0.125, 0.0),
        'mask_embed.0.weight': (0.125, WD),
        'pixel_decoder.level_encoding.weight': (1.0, WD),
    }
    check(found, {f'decode_head.{name}': values for name, values in head.items()})


def test_detection_decays_everything():
    model = Detector(trunk(out_type='featmap'))
    found = table(model, build(model, rule='detection'))
    expected = {f'backbone.{n}': (scale, WD) for n, (scale, _) in TRUNK.items()}
    del expected['backbone.fc_norm.weight']
    expected['backbone.cls_token'] = (1.0, WD)
    expected['backbone.blocks.0.residual.weight'] = (1.0, WD)
    expected['neck.bias'] = (1.0, WD)
    expected['mask_head.weight'] = (1.0, WD)
    check(found, expected)
    assert {wd for _, wd in found.values()} == {WD}


@pytest.mark.parametrize('rule', ['classification', 'segmentation', 'detection'])
@pytest.mark.parametrize('depth', [2, 5])
def test_few_groups_in_a_fixed_order_with_names(rule, depth):
    arch = {'embed_dims': 16, 'depth': depth, 'num_heads': 2}
    model = Classifier(EVAViT(arch, img_size=28, patch_size=14))
    groups = build(model, rule=rule).param_groups
    assert len(groups) <= 2 * (depth + 2)
    names = [group['group_name'] for group in groups]
    assert len(set(names)) == len(names)
    assert names[0] == 'layer_0_decay' and f'layer_{depth + 1}_decay' in names
    scales = [group['lr_scale'] for group in groups]
    assert scales == sorted(scales)
    again = build(model, rule=rule).param_groups
    assert [[id(p) for p in g['params']] for g in again] == [
        [id(p) for p in g['params']] for g in groups
    ]


def test_no_layer_decay_leaves_two_groups():
    optimizer = build(Classifier(trunk()), layer_decay_rate=1.0)
    assert [group['weight_decay'] for group in optimizer.param_groups] == [WD, 0.0]
    assert {group['lr_scale'] for group in optimizer.param_groups} == {1.0}


def test_no_options_still_means_the_classification_rule():
    constructor = LayerDecayOptimWrapperConstructor(
        {'optimizer': {'type': 'AdamW', 'lr': 0.01, 'weight_decay': WD}}
    )
    groups = constructor(Classifier(trunk())).optimizer.param_groups
    assert [group['weight_decay'] for group in groups] == [WD, 0.0]


def test_frozen_parameters_are_left_out():
    model = Classifier(trunk(frozen_stages=1))
    found = table(model, build(model))
    assert set(found) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert (
        'backbone.blocks.0.norm1.weight' not in found and 'backbone.blocks.1.norm1.weight' in found
    )


def test_frozen_teachers_do_not_count_and_linear_probing_works():
    model = Classifier(trunk())
    teacher = EVAViT({'embed_dims': 16, 'depth': 7, 'num_heads': 2}, img_size=28, patch_size=14)
    model.teacher = teacher.requires_grad_(False)
    assert table(model, build(model))['backbone.cls_token'] == (0.125, 0.0)
    model.backbone.requires_grad_(False)
    assert table(model, build(model)) == {'head.fc.weight': (1.0, WD), 'head.fc.bias': (1.0, 0.0)}


def test_two_trunks_go_by_their_own_depth():
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = trunk()
            arch = {'embed_dims': 16, 'depth': 4, 'num_heads': 2}
            self.other = EVAViT(arch, img_size=28, patch_size=14)

    model = Towers()
    found = table(model, build(model))
    assert found['visual.pos_embed'] == (RATE**3, 0.0)
    assert found['other.pos_embed'] == (RATE**5, 0.0)
    assert found['other.blocks.3.norm1.bias'] == (RATE, 0.0)


def test_custom_keys_scale_on_top_and_the_longest_wins():
    model = Classifier(trunk())
    keys = {'head': {'lr_mult': 10.0}, 'head.fc.bias': {'decay_mult': 2.0}}
    found = table(model, build(model, custom_keys=keys))
    assert found['head.fc.weight'] == (10.0, WD)
    assert found['head.fc.bias'] == (1.0, 2 * WD)
    assert found['backbone.fc_norm.weight'] == (1.0, 0.0)


def test_the_table_is_logged_once(caplog, make_logger):
    build(Classifier(trunk()))
    text = '\n'.join(record.getMessage() for record in caplog.records)
    assert text.count('Parameter groups: 8 (rule classification, layer decay 0.5)') == 1
    assert 'layer_3_no_decay' in text and '0.125' in text


@pytest.fixture
def make_logger(caplog):
    """mmengine's logger of this moment, heard by caplog."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('layer_decay_table')
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield logger
    MMLogger._instance_dict.clear()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'decay_rate': 0.7}, "unknown key 'decay_rate'"),
        ({'layer_decay_rate': 1.5}, r'must be in \(0, 1\], found 1.5'),
        ({'rule': 'video'}, "one of classification, segmentation, detection, found 'video'"),
        ({'custom_keys': {'head': {'lr': 1}}}, "custom_keys.'head'.: unknown lr"),
        ({'custom_keys': {'haed': {'lr_mult': 1}}}, 'haed is not part of the name'),
    ],
)
def test_refuses_what_it_does_not_understand(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(Classifier(trunk()), **kwargs)


def test_names_a_model_without_layers():
    with pytest.raises(ValueError, match='no sub-module of Linear has get_layer_depth'):
        build(nn.Linear(2, 2))


def test_adamw_is_fused_by_default_and_takes_the_same_steps():
    torch.manual_seed(0)
    models = [Classifier(trunk()) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    cfg = {'type': 'AdamW', 'lr': 0.01, 'weight_decay': WD, 'betas': (0.9, 0.98), 'eps': 1e-6}
    optimizers = [
        OPTIM_WRAPPER_CONSTRUCTORS.build(
            {
                'type': 'evamm.LayerDecayOptimWrapperConstructor',
                'optim_wrapper_cfg': {'optimizer': {**cfg, **extra}},
                'paramwise_cfg': {'layer_decay_rate': RATE},
            }
        )(model).optimizer
        for model, extra in zip(models, ({}, {'fused': False}), strict=True)
    ]
    assert [optimizer.defaults['fused'] for optimizer in optimizers] == [True, False]
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for params in zip(*(model.parameters() for model in models), strict=True):
            grad = torch.randn(params[0].shape, generator=generator)
            for param in params:
                param.grad = grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for fused, plain in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-6, atol=1e-7)


def test_unknown_optimizer_is_named():
    build = LayerDecayOptimWrapperConstructor(
        {'type': 'OptimWrapper', 'optimizer': {'type': 'AdmW', 'lr': 1e-3}},
        {'layer_decay_rate': 0.9},
    )
    with pytest.raises(ConfigError, match="'AdmW'.*did you mean AdamW"):
        build(Classifier(trunk()))
