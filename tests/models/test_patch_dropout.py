"""Patches left out in training, and the last block that computes the class token only."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evamm.engine.strategies import compile_blocks
from evamm.models.backbones import EVAViT
from evamm.models.layers import apply_rope, rope_table

SMALL = dict(embed_dims=32, depth=3, num_heads=4, ffn_hidden_dims=24, patch_size=4)
FAMILIES = {
    'eva01': dict(SMALL, ffn='mlp', rope=False),
    'eva02': SMALL,
    'eva02-clip': dict(SMALL, ffn_norm=True, attn_norm=True),
    'no bias': dict(SMALL, qkv_bias='none'),
    'enormous': dict(SMALL, ffn='mlp', rope=False, post_norm=True),
}


def build(arch=SMALL, **options):
    torch.manual_seed(0)
    model = EVAViT(arch, **{'img_size': 16, 'out_type': 'cls_token', **options})
    model.init_weights()
    torch.nn.init.normal_(model.pos_embed)
    return model.double()


def image(batch=3, size=16):
    return torch.randn(batch, 3, size, size, dtype=torch.float64)


def formula(model, x, keep):
    """Every sample alone, with the tokens and rotations of the patches in ``keep`` [B, K]."""
    outs = []
    for sample, kept in zip(x, keep, strict=True):
        tokens, grid = model._embed(sample[None], None)
        rows = torch.cat((torch.tensor([0]), kept + 1))
        table = None
        if model.arch.rope:
            table = rope_table(*grid, model.arch.head_dims, dtype=torch.float64)[rows]
        tokens = tokens[:, rows]
        for block in model.blocks:
            tokens = block(tokens, table)
        outs.append(model.norm(tokens)[:, 0])
    return torch.cat(outs)


def drawn(seed, batch, patches, kept):
    torch.manual_seed(seed)
    return torch.rand(batch, patches).topk(kept).indices


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('size, share, kept', [(16, 0.5, 8), (24, 0.3, 25), (16, 0.99, 1)])
def test_equals_the_kept_tokens_run_alone(family, size, share, kept):
    model = build(FAMILIES[family], patch_dropout=share).train()
    x = image(size=size)
    keep = drawn(1, 3, (size // 4) ** 2, kept)
    torch.manual_seed(1)
    torch.testing.assert_close(model(x)[0], formula(model, x, keep), rtol=1e-10, atol=1e-12)


def test_every_sample_has_its_own_patches_without_repetition():
    seen = []
    model = build(patch_dropout=0.5).train()
    model.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args))
    x = image(4)
    model(x)
    tokens, rope = seen[0][0], seen[0][1]
    whole = model._embed(x, None)[0]
    assert tokens.shape == (4, 9, 32) and rope.shape == (4, 9, 4, 2)
    assert torch.equal(tokens[:, 0], whole[:, 0])
    choices = set()
    for own, all_tokens in zip(tokens[:, 1:], whole[:, 1:], strict=True):
        places = [int((all_tokens == token).all(-1).nonzero()) for token in own]
        assert len(set(places)) == 8
        choices.add(tuple(sorted(places)))
    assert len(choices) > 1


def test_off_in_evaluation_and_at_zero():
    x = image()
    expected = build().eval()(x)[0]
    assert torch.equal(build(patch_dropout=0.5).eval()(x)[0], expected)
    assert torch.equal(build(patch_dropout=0.0).train()(x)[0], expected)
    assert not torch.allclose(build(patch_dropout=0.5).train()(x)[0], expected, atol=1e-4)


@pytest.mark.parametrize('out_type', ['raw', 'avg_featmap'])
def test_other_outputs_see_the_kept_patches(out_type):
    model = build(patch_dropout=0.5, out_type=out_type).train()
    out = model(image())[0]
    assert out.shape == ((3, 9, 32) if out_type == 'raw' else (3, 32))


def test_checkpointing_recomputes_the_same_patches():
    x, gradients = image(), []
    for with_cp in (False, True):
        model = build(with_cp=with_cp, patch_dropout=0.5, drop_path_rate=0.3).train()
        torch.manual_seed(1)
        model(x)[0].square().sum().backward()
        gradients.append([param.grad for param in model.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_compiled_blocks_take_tables_of_samples():
    x, outs = image(), []
    for compiled in (False, True):
        model = build(patch_dropout=0.5).train()
        if compiled:
            compile_blocks(model, backend='aot_eager')
        torch.manual_seed(1)
        out = model(x)[0]
        out.sum().backward()
        outs.append((out.detach(), model.blocks[0].attn.qkv.weight.grad))
    for found, expected in zip(*outs, strict=True):
        torch.testing.assert_close(found, expected)


def test_rope_of_samples_is_the_rope_of_each():
    x = torch.randn(2, 5, 3, 8)
    table = rope_table(2, 3, 8)[torch.tensor([[0, 3, 1, 2, 6], [0, 6, 5, 4, 1]])]
    found = apply_rope(x, table)
    for row in range(2):
        assert torch.equal(found[row], apply_rope(x[row][None], table[row])[0])


@pytest.mark.parametrize('family', FAMILIES)
def test_class_token_alone_is_that_of_all_tokens(family):
    """Values and gradients of a trunk whose last block computes one token of 17."""
    x, results = image(), []
    for out_type in ('cls_token', 'raw'):
        model = build(FAMILIES[family], out_type=out_type, drop_path_rate=0.3).train()
        torch.manual_seed(1)
        out = model(x)[0]
        out = out if out_type == 'cls_token' else out[:, 0]
        out.square().sum().backward()
        grads = {name: param.grad for name, param in model.named_parameters()}
        results.append((out.detach(), grads))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-10, atol=1e-12)
    for name, grad in results[1][1].items():
        torch.testing.assert_close(results[0][1][name], grad, rtol=1e-9, atol=1e-12, msg=name)


def test_class_tokens_of_inner_blocks_leave_later_blocks_whole():
    x = image()
    found = build(out_indices=(0, 2)).eval()(x)
    raw = build(out_indices=(0, 2), out_type='raw').eval()(x)
    for own, whole in zip(found, raw, strict=True):
        torch.testing.assert_close(own, whole[:, 0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('patch_dropout', [0.0, 0.4])
def test_macs_are_those_of_what_runs(family, patch_dropout):
    with torch.device('meta'):
        model = EVAViT(
            FAMILIES[family], img_size=16, out_type='cls_token', patch_dropout=patch_dropout
        )
        x = torch.zeros(2, 3, 16, 16)
    for mode in (True, False):
        model.train(mode)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x)
        assert 2 * model.count_macs((2, 3, 16, 16)) == counter.get_total_flops()


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(patch_dropout=1.0), 'patch_dropout=1.0'),
        (dict(patch_dropout=0.5, out_type='featmap'), 'no featmap'),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)
