"""Layer decay on real detectors and segmentors, as a config asks for it."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

import evamm.registry  # noqa: F401

BACKBONE = {
    'type': 'evamm.EVAViT',
    'arch': {'embed_dims': 16, 'depth': 3, 'num_heads': 2},
    'img_size': 32,
    'patch_size': 16,
    'out_type': 'featmap',
}
HEADS = {
    'mmseg': {
        'type': 'mmseg.EncoderDecoder',
        'backbone': {**BACKBONE, 'out_indices': (1, 2)},
        'decode_head': {
            'type': 'mmseg.FCNHead',
            'in_channels': 16,
            'in_index': 1,
            'channels': 8,
            'num_classes': 3,
            'norm_cfg': {'type': 'BN'},
        },
        'test_cfg': {'mode': 'whole'},
    },
    'mmdet': {
        'type': 'mmdet.RetinaNet',
        'backbone': {**BACKBONE, 'out_indices': (1, 2)},
        'neck': {
            'type': 'mmdet.FPN',
            'in_channels': [16, 16],
            'out_channels': 8,
            'num_outs': 5,
        },
        'bbox_head': {
            'type': 'mmdet.RetinaHead',
            'num_classes': 3,
            'in_channels': 8,
            'feat_channels': 8,
            'stacked_convs': 1,
        },
        'train_cfg': {},
        'test_cfg': {},
    },
}


@pytest.mark.parametrize(('scope', 'rule'), [('mmseg', 'segmentation'), ('mmdet', 'detection')])
def test_heads_train_at_full_rate_and_the_trunk_by_its_depth(scope, rule):
    pytest.importorskip(scope)
    __import__(f'{scope}.models')
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta'):
        model = MODELS.build(HEADS[scope])
        wrapper = build_optim_wrapper(
            model,
            {
                'constructor': 'evamm.LayerDecayOptimWrapperConstructor',
                'paramwise_cfg': {'layer_decay_rate': 0.5, 'rule': rule},
                'optimizer': {'type': 'AdamW', 'lr': 1.0, 'weight_decay': 0.1},
            },
        )
    groups = wrapper.optimizer.param_groups
    assert len(groups) <= 2 * (3 + 2)
    rate = {id(param): group['lr'] for group in groups for param in group['params']}
    rates = {name: rate[id(param)] for name, param in model.named_parameters()}
    assert rates['backbone.patch_embed.proj.weight'] == 0.5**4
    for block in range(3):
        assert rates[f'backbone.blocks.{block}.mlp.w3.weight'] == 0.5 ** (3 - block)
    heads = {name: value for name, value in rates.items() if not name.startswith('backbone.')}
    assert len(heads) > 4 and set(heads.values()) == {1.0}
