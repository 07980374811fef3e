"""Contract of the text tower; test_open_clip.py compares its numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from evamm.engine.strategies import compile_blocks, find_blocks
from evamm.models.clip import CLIPTextTransformer
from evamm.registry import MODELS

ARCH = dict(width=24, depth=3, num_heads=3)
VOCAB, LENGTH = 40, 10


def build(**options):
    torch.manual_seed(0)
    options = dict(context_length=LENGTH, vocab_size=VOCAB, **options)
    tower = CLIPTextTransformer(ARCH, 8, **options)
    tower.init_weights()
    for param in tower.parameters():
        param.data.add_(torch.randn_like(param) * 0.1)
    return tower.double()


def rows(*lengths):
    """Captions of these many tokens, the last of which has the highest id, and zeros."""
    result = torch.zeros(len(lengths), LENGTH, dtype=torch.long)
    for row, length in zip(result, lengths, strict=True):
        row[: length - 1] = torch.randint(1, VOCAB - 1, (length - 1,))
        row[length - 1] = VOCAB - 1
    return result


def formula(tower, tokens):
    """One caption at a time, all tokens in all blocks, attention written out."""
    outs = []
    heads, width = ARCH['num_heads'], ARCH['width']
    for row in tokens:
        x = tower.token_embedding.weight[row] + tower.positional_embedding
        for block in tower.transformer['resblocks']:
            y = F.layer_norm(x, (width,), block.ln_1.weight, block.ln_1.bias, 1e-5)
            qkv = y @ block.attn.in_proj_weight.t() + block.attn.in_proj_bias
            q, k, v = (part.view(LENGTH, heads, -1).transpose(0, 1) for part in qkv.chunk(3, -1))
            scores = q @ k.transpose(1, 2) * (width // heads) ** -0.5
            later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
            y = scores.masked_fill(later, float('-inf')).softmax(-1) @ v
            x = x + block.attn.out_proj(y.transpose(0, 1).flatten(1))
            y = F.layer_norm(x, (width,), block.ln_2.weight, block.ln_2.bias, 1e-5)
            x = x + block.mlp.c_proj(F.gelu(block.mlp.c_fc(y)))
        x = F.layer_norm(x, (width,), tower.ln_final.weight, tower.ln_final.bias, 1e-5)
        outs.append(x[row.argmax()] @ tower.text_projection)
    return torch.stack(outs)


def test_equals_the_formula_with_gradients():
    tokens = rows(2, 5, LENGTH, 7)
    tower = build()
    results = []
    for function in (tower, lambda tokens: formula(tower, tokens)):
        tower.zero_grad()
        out = function(tokens)
        out.square().sum().backward()
        results.append((out.detach(), [param.grad.clone() for param in tower.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-10, atol=1e-12)
    for found, expected in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_what_stands_behind_the_end_has_no_influence():
    tower, tokens = build().eval(), rows(4, 6)
    expected = tower(tokens)
    changed = tokens.clone()
    changed[0, 4:] = 3
    torch.testing.assert_close(tower(changed), expected)
    torch.testing.assert_close(tower(tokens[:, :6]), expected, rtol=1e-12, atol=1e-12)
    changed[0, 2] = 3 + (tokens[0, 2] == 3)
    assert not torch.allclose(tower(changed)[0], expected[0], atol=1e-4)


def test_checkpointing_gives_equal_gradients():
    tokens, gradients = rows(4, 6, 9), []
    for with_cp in (False, True):
        tower = build(with_cp=with_cp).train()
        tower(tokens).square().sum().backward()
        gradients.append([param.grad for param in tower.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected)


def test_blocks_are_found_and_compiled_without_breaks():
    tokens, tower = rows(3, 8), build().train()
    assert list(find_blocks(tower).values()) == list(tower.transformer['resblocks'])
    expected = tower(tokens)
    assert compile_blocks(tower, backend='aot_eager') == 3
    torch.testing.assert_close(tower(tokens), expected)


def test_layers_and_decay():
    tower = build()
    layers = {
        name: tower.get_layer_depth('text.' + name, 'text.') for name, _ in tower.named_parameters()
    }
    assert layers['token_embedding.weight'] == layers['positional_embedding'] == (0, 5)
    assert layers['transformer.resblocks.2.mlp.c_fc.bias'] == (3, 5)
    assert layers['ln_final.weight'] == layers['text_projection'] == (4, 5)
    assert tower.get_layer_depth('head.weight', 'text.') == (4, 5)
    assert tower.no_weight_decay() == {'positional_embedding'}


def test_first_weights_are_openais():
    torch.manual_seed(0)
    tower = CLIPTextTransformer(dict(width=256, depth=2, num_heads=4), 128, vocab_size=1000)
    tower.init_weights()
    block = tower.blocks[0]
    for tensor, std in [
        (tower.token_embedding.weight, 0.02),
        (tower.positional_embedding, 0.01),
        (block.attn.in_proj_weight, 256**-0.5),
        (block.attn.out_proj.weight, 256**-0.5 * 4**-0.5),
        (block.mlp.c_fc.weight, 512**-0.5),
        (block.mlp.c_proj.weight, 256**-0.5 * 4**-0.5),
        (tower.text_projection, 256**-0.5),
    ]:
        assert tensor.std().item() == pytest.approx(std, rel=0.03)
    assert not block.attn.in_proj_bias.any() and not block.attn.out_proj.bias.any()


@pytest.mark.parametrize('length', [1, 7, 10])
def test_macs_are_those_of_what_runs(length):
    with torch.device('meta'):
        tower = CLIPTextTransformer(ARCH, 8, context_length=LENGTH, vocab_size=VOCAB)
        tokens = torch.zeros(3, length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tower(tokens)
    assert 2 * tower.count_macs((3, length)) == counter.get_total_flops()


def test_errors_name_the_setting():
    with pytest.raises(ValueError, match='context_length=10'):
        build()(torch.zeros(1, 11, dtype=torch.long))
    tower = CLIPTextTransformer(ARCH, 8, init_cfg=dict(type='Xavier'))
    with pytest.raises(ValueError, match="type='Pretrained'"):
        tower.init_weights()


def test_built_by_name():
    tower = MODELS.build(dict(type='evamm.CLIPTextTransformer', arch=ARCH, embed_dims=8))
    assert isinstance(tower, CLIPTextTransformer)
