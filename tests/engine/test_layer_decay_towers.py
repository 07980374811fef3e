"""Learning rates of the two towers of a CLIP model, against the groups of the official code."""

import pytest
import torch
from torch import nn

from evamm.engine import LayerDecayOptimWrapperConstructor
from evamm.engine.errors import ConfigError
from evamm.models import EVAViT

# What EVA-CLIP/rei/training/optim.py (get_all_parameters) makes of a model with 2 image blocks of
# width 16 and 3 text blocks of width 8, with --lr 5e-4 --visual-lr 4e-4 --text-lr 4e-5
# --wd 0.05 --visual-ld 0.85 --text-ld 0.75: learning rate and weight decay. Recorded from a run.
# fmt: off
OFFICIAL = {
    'visual.cls_token': (2.4565e-4, 0.0),
    'visual.pos_embed': (2.4565e-4, 0.0),
    'visual.patch_embed.proj.weight': (2.4565e-4, 0.05),
    'visual.patch_embed.proj.bias': (2.4565e-4, 0.0),
    'visual.blocks.0.norm1.weight': (2.89e-4, 0.0),
    'visual.blocks.0.norm1.bias': (2.89e-4, 0.0),
    'visual.blocks.0.attn.q_bias': (2.89e-4, 0.0),
    'visual.blocks.0.attn.v_bias': (2.89e-4, 0.0),
    'visual.blocks.0.attn.inner_attn_ln.weight': (2.89e-4, 0.0),
    'visual.blocks.0.attn.inner_attn_ln.bias': (2.89e-4, 0.0),
    'visual.blocks.0.attn.q_proj.weight': (2.89e-4, 0.05),
    'visual.blocks.0.attn.k_proj.weight': (2.89e-4, 0.05),
    'visual.blocks.0.attn.v_proj.weight': (2.89e-4, 0.05),
    'visual.blocks.0.attn.proj.weight': (2.89e-4, 0.05),
    'visual.blocks.0.attn.proj.bias': (2.89e-4, 0.0),
    'visual.blocks.0.norm2.weight': (2.89e-4, 0.0),
    'visual.blocks.0.norm2.bias': (2.89e-4, 0.0),
    'visual.blocks.0.mlp.w1.weight': (2.89e-4, 0.05),
    'visual.blocks.0.mlp.w1.bias': (2.89e-4, 0.0),
    'visual.blocks.0.mlp.w2.weight': (2.89e-4, 0.05),
    'visual.blocks.0.mlp.w2.bias': (2.89e-4, 0.0),
    'visual.blocks.0.mlp.ffn_ln.weight': (2.89e-4, 0.0),
    'visual.blocks.0.mlp.ffn_ln.bias': (2.89e-4, 0.0),
    'visual.blocks.0.mlp.w3.weight': (2.89e-4, 0.05),
    'visual.blocks.0.mlp.w3.bias': (2.89e-4, 0.0),
    'visual.blocks.1.norm1.weight': (3.4e-4, 0.0),
    'visual.blocks.1.attn.inner_attn_ln.weight': (3.4e-4, 0.0),
    'visual.blocks.1.attn.proj.weight': (3.4e-4, 0.05),
    'visual.blocks.1.mlp.w3.bias': (3.4e-4, 0.0),
    'visual.norm.weight': (4e-4, 0.0),
    'visual.norm.bias': (4e-4, 0.0),
    'visual.head.weight': (4e-4, 0.05),
    'visual.head.bias': (4e-4, 0.0),
    'text.positional_embedding': (1.265625e-5, 0.0),
    'text.token_embedding.weight': (1.265625e-5, 0.05),
    'text.transformer.resblocks.0.ln_1.weight': (1.6875e-5, 0.0),
    'text.transformer.resblocks.0.attn.in_proj_weight': (1.6875e-5, 0.05),
    'text.transformer.resblocks.0.attn.in_proj_bias': (1.6875e-5, 0.0),
    'text.transformer.resblocks.0.attn.out_proj.weight': (1.6875e-5, 0.05),
    'text.transformer.resblocks.1.mlp.c_fc.weight': (2.25e-5, 0.05),
    'text.transformer.resblocks.1.mlp.c_fc.bias': (2.25e-5, 0.0),
    'text.transformer.resblocks.1.ln_2.bias': (2.25e-5, 0.0),
    'text.transformer.resblocks.2.mlp.c_proj.weight': (3e-5, 0.05),
    'text.transformer.resblocks.2.mlp.c_proj.bias': (3e-5, 0.0),
    'text.ln_final.weight': (4e-5, 0.0),
    'text.ln_final.bias': (4e-5, 0.0),
    'text.text_projection': (4e-5, 0.05),
    'logit_scale': (5e-4, 0.0),
}
# fmt: on
OFFICIAL_GROUPS = 19
ARCH = dict(embed_dims=16, depth=2, num_heads=2, ffn_norm=True, attn_norm=True)
TOWERS = dict(
    visual=dict(prefixes=['backbone.', 'head.'], lr=4e-4, layer_decay_rate=0.85),
    text=dict(prefixes=['text.'], lr=4e-5, layer_decay_rate=0.75),
)
# Official names whose tensors are parts of one of ours.
PACKED = {
    'attn.q_proj.weight': 'attn.qkv.weight',
    'attn.k_proj.weight': 'attn.qkv.weight',
    'attn.v_proj.weight': 'attn.qkv.weight',
    'mlp.w1.': 'mlp.w12.',
    'mlp.w2.': 'mlp.w12.',
    'attn.inner_attn_ln.': 'attn.norm.',
    'mlp.ffn_ln.': 'mlp.norm.',
}


def our_name(name):
    for old, new in PACKED.items():
        name = name.replace(old, new)
    if name.startswith('visual.head.'):
        return name.removeprefix('visual.')
    return name.replace('visual.', 'backbone.', 1)


def clip_model():
    """The real model, small."""
    from evamm.models import EVACLIP

    return EVACLIP(
        backbone=dict(
            type='evamm.EVAViT', arch=ARCH, img_size=28, patch_size=14, out_type='cls_token'
        ),
        text=dict(
            type='evamm.CLIPTextTransformer',
            arch=dict(width=8, depth=3, num_heads=2),
            context_length=6,
            vocab_size=20,
        ),
        embed_dims=8,
    )


def build(model, towers=TOWERS, optimizer='AdamW', **paramwise):
    paramwise = {'rule': 'classification', 'towers': towers, **paramwise}
    cfg = {'optimizer': {'type': optimizer, 'lr': 5e-4, 'weight_decay': 0.05}}
    return LayerDecayOptimWrapperConstructor(cfg, paramwise)(model).optimizer


def table(model, optimizer):
    """{name: (lr, weight decay)}."""
    names = {id(param): name for name, param in model.named_parameters()}
    return {
        names[id(param)]: (group['lr'], group['weight_decay'])
        for group in optimizer.param_groups
        for param in group['params']
    }


def test_groups_are_the_official_ones():
    model = clip_model()
    optimizer = build(model, optimizer='evamm.LAMB')
    found = table(model, optimizer)
    for name, (lr, weight_decay) in OFFICIAL.items():
        assert found[our_name(name)] == (pytest.approx(lr, rel=1e-9), weight_decay), name
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert len(optimizer.param_groups) == OFFICIAL_GROUPS
    names = [group['group_name'] for group in optimizer.param_groups]
    assert len(set(names)) == len(names)
    assert names[0] == 'visual_layer_0_decay' and names[-1] == 'other_no_decay'
    assert 'text_layer_4_no_decay' in names


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 2))


class Text(nn.Module):
    """A trunk of another kind: its layers have names of their own."""

    def __init__(self, layered=True):
        super().__init__()
        self.table = nn.Parameter(torch.ones(2, 2))
        self.layer = nn.ModuleList([Block(), Block(), Block()])
        if layered:
            self.get_layer_depth = self._depth
            self.no_weight_decay = lambda: {'table'}

    def _depth(self, name, prefix=''):
        if not name.startswith(prefix):
            return 4, 5
        name = name.removeprefix(prefix)
        return (int(name.split('.')[1]) + 1 if name.startswith('layer.') else 0), 5


class Pair(nn.Module):
    def __init__(self, layered=True):
        super().__init__()
        self.backbone = EVAViT(ARCH, img_size=28, patch_size=14)
        self.head = nn.Linear(16, 4)
        self.text = Text(layered)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.adapter = nn.Linear(4, 4)


def test_missing_values_are_those_of_the_optimizer():
    model = Pair()
    found = table(model, build(model, dict(text=dict(prefixes=['text.'], weight_decay=0.2))))
    assert {lr for lr, _ in found.values()} == {5e-4}
    assert found['text.layer.0.weight'][1] == 0.2 and found['text.table'][1] == 0.0
    assert found['backbone.blocks.0.attn.qkv.weight'][1] == 0.05


def test_other_parameters_take_the_base_rate_whole():
    model = Pair()
    found = table(model, build(model))
    assert found['adapter.weight'] == (5e-4, 0.05)
    assert found['adapter.bias'] == (5e-4, 0.0) == found['logit_scale']


def test_layer_decay_outside_of_the_towers():
    model = Pair()
    towers = dict(text=dict(prefixes=['text.'], layer_decay_rate=1.0))
    found = table(model, build(model, towers, layer_decay_rate=0.5))
    assert found['backbone.pos_embed'][0] == pytest.approx(5e-4 * 0.5**3)
    assert found['text.table'][0] == 5e-4


def test_the_longest_prefix_wins():
    model = Pair()
    towers = dict(TOWERS, last=dict(prefixes=['text.layer.2.'], lr=1.0))
    found = table(model, build(model, towers))
    assert found['text.layer.2.weight'][0] == pytest.approx(1.0)
    assert found['text.layer.1.weight'][0] == pytest.approx(4e-5 * 0.75**2)


def test_a_frozen_tower_leaves_its_head_to_train():
    model = Pair()
    model.backbone.requires_grad_(False)
    found = table(model, build(model))
    assert found['head.weight'] == (4e-4, 0.05)
    assert not any(name.startswith('backbone.') for name in found)


def test_custom_keys_count_within_the_tower():
    model = Pair()
    keys = {'text.layer.2': dict(lr_mult=0.5, decay_mult=2.0)}
    found = table(model, build(model, custom_keys=keys))
    assert found['text.layer.2.weight'] == (pytest.approx(4e-5 * 0.75 * 0.5), 0.1)


def test_schedules_keep_the_ratios():
    from evamm.engine import WarmupCosineLR

    model = Pair()
    optimizer = build(model)
    peaks = [group['lr'] for group in optimizer.param_groups]
    schedule = WarmupCosineLR(optimizer, warmup=4, end=20, by_epoch=False)
    for _ in range(12):
        schedule.step()
    ratios = {round(g['lr'] / p, 12) for g, p in zip(optimizer.param_groups, peaks, strict=True)}
    assert ratios == {0.5}


def test_one_table_names_the_towers(caplog):
    import logging

    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('tower_table')
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    build(Pair())
    MMLogger._instance_dict.clear()
    text = '\n'.join(record.getMessage() for record in caplog.records)
    assert 'layer decay visual 0.85, text 0.75, other 1)' in text
    assert text.count('Parameter groups') == 1 and 'text_layer_3_decay' in text


@pytest.mark.parametrize(
    ('towers', 'message'),
    [
        (dict(text=dict(prefixes=['txet.'])), r"text\.prefixes: no parameter begins with 'txet\.'"),
        (dict(text=dict(prefixes='text.')), r"text\.prefixes must be a list .* found 'text\.'"),
        (dict(text=dict(lr=1)), r'text\.prefixes must be a list'),
        (dict(text=dict(prefixes=['text.'], rate=1)), 'towers.text: unknown key rate'),
        (dict(text=dict(prefixes=['text.'], layer_decay_rate=0)), r'text\.layer_decay_rate must'),
        (
            dict(a=dict(prefixes=['text.']), b=dict(prefixes=['text.'])),
            r"towers\.b\.prefixes: 'text\.' belongs to a too",
        ),
    ],
)
def test_mistakes_are_named(towers, message):
    with pytest.raises(ConfigError, match=message):
        build(Pair(), towers)


def test_layer_decay_needs_layers():
    with pytest.raises(ConfigError, match=r'towers\.text\.layer_decay_rate=0\.75, but nothing in'):
        build(Pair(layered=False))
