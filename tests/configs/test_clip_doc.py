"""docs/en/clip.md: its configs name what exists, its options are taken."""

import inspect
import re

import pytest
import torch
from mmengine.registry import MODELS, OPTIM_WRAPPERS, RUNNERS, STRATEGIES, DefaultScope

from evamm.engine import LAMB, LayerDecayOptimWrapperConstructor
from evamm.engine.strategies import compile_blocks, find_blocks

from .common import ROOT, load

PAGE = (ROOT / 'docs' / 'en' / 'clip.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE, re.S)
RECIPE = ROOT / 'configs' / 'eva_clip' / 'eva02_clip_base_p16_64xb2048_merged2b.py'


def run(block):
    scope = {}
    exec(block, scope)
    return scope


def build(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        return MODELS.build(cfg)


def test_the_config_shown_is_the_recipe():
    shown = run(BLOCKS[0])
    model = build(shown['model'])
    wrapper = shown['optim_wrapper']
    recipe = load(RECIPE).optim_wrapper
    assert wrapper['paramwise_cfg'] == recipe.paramwise_cfg
    assert wrapper['clip_grad'] == recipe.clip_grad
    paramwise, _ = wrapper.pop('paramwise_cfg'), wrapper.pop('constructor')
    optimizer = LayerDecayOptimWrapperConstructor(wrapper, paramwise)(model).optimizer
    assert type(optimizer) is LAMB and len(optimizer.param_groups) == 57
    whole = load(RECIPE).model
    for key in ('type', 'embed_dims', 'loss'):
        assert shown['model'][key] == whole[key]


def test_the_sigmoid_loss_fits_over_a_recipe():
    """As the table has it: without `_delete_`, arguments of the other loss would stay."""
    (loss,) = re.findall(r'`model\.loss=(dict\(.*SigmoidLoss.*?\))`', PAGE)
    cfg = load(RECIPE)
    cfg.merge_from_dict({'model': dict(loss=eval(loss), logit_scale=10, logit_bias=-10)})
    assert type(build(cfg.model).loss).__name__ == 'SigmoidLoss'


@pytest.mark.parametrize(
    'options',
    [
        dict(loss=dict(type='evamm.SigmoidLoss'), logit_scale=10, logit_bias=-10),
        dict(train_cfg=dict(micro_batch_size=256, clamp_logit_scale=4.0)),
    ],
)
def test_switches_of_the_table_are_taken(options):
    assert build({**run(BLOCKS[0])['model'], **options}).embed_dims == 512
    for key, value in options.items():
        for name in value if isinstance(value, dict) and key == 'train_cfg' else [key]:
            assert name in PAGE


def test_the_deepspeed_config_names_what_exists():
    pytest.importorskip('mmengine._strategy')
    shown = run(BLOCKS[1])
    assert RUNNERS.get(shown['runner_type']) is not None
    strategy = STRATEGIES.get(shown['strategy'].pop('type'))
    inspect.signature(strategy).bind(**shown['strategy'])
    assert OPTIM_WRAPPERS.get(shown['optim_wrapper']['type']) is not None


def test_numbers_of_the_batch():
    assert 16 * 131072**2 / 8 == 32 * 2**30  # logits of B/16 on 8 GPUs
    assert '61,036' in PAGE and load(RECIPE).train_cfg.max_iters == 61036
    # 20 million of each list, rounded up to whole batches for 8 workers, 200 epochs.
    batches = -(-20_000_000 // 131072)
    assert 200 * 2 * 8 * -(-batches // 8) == 64_000


def test_the_blocks_of_both_towers_are_sharded_and_compiled():
    model = build(
        dict(
            type='evamm.EVACLIP',
            embed_dims=8,
            backbone=dict(
                type='evamm.EVAViT',
                arch=dict(embed_dims=16, depth=2, num_heads=2),
                img_size=28,
                patch_size=14,
                out_type='cls_token',
            ),
            text=dict(type='evamm.CLIPTextTransformer', arch=dict(width=8, depth=3, num_heads=2)),
        )
    )
    blocks = find_blocks(model)
    assert list(blocks.values()) == [*model.backbone.blocks, *model.text.blocks]
    assert compile_blocks(model, backend='eager') == 5
    assert not any('_orig_mod' in name for name in model.state_dict())
