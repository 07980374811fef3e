"""Plain layers against their formulas."""

import pytest
import torch
import torch.nn.functional as F

from evamm.models.layers import (
    MLP,
    Attention,
    Block,
    DropPath,
    PatchEmbed,
    SwiGLU,
    apply_rope,
    draw_drop_path,
    rope_table,
    window_partition,
    window_unpartition,
)


def attention_by_formula(layer, x, rope):
    """Softmax attention written out, with an explicit zero bias for k."""
    batch, tokens, dims = x.shape
    heads = layer.num_heads
    weight = layer.qkv.weight
    if layer.q_bias is not None:
        biases = (layer.q_bias, torch.zeros(dims, dtype=x.dtype), layer.v_bias)
    elif layer.qkv.bias is not None:
        biases = layer.qkv.bias.chunk(3)
    else:
        biases = (0.0, 0.0, 0.0)
    q, k, v = (
        (x @ part.T + bias).view(batch, tokens, heads, -1)
        for part, bias in zip(weight.chunk(3), biases, strict=True)
    )
    if rope is not None:
        q, k = apply_rope(q, rope), apply_rope(k, rope)
    logits = torch.einsum('bnhd,bmhd->bhnm', q, k) * (dims // heads) ** -0.5
    out = torch.einsum('bhnm,bmhd->bnhd', logits.softmax(-1), v).reshape(x.shape)
    if not isinstance(layer.norm, torch.nn.Identity):
        out = F.layer_norm(out, (dims,), layer.norm.weight, layer.norm.bias, eps=1e-6)
    return out @ layer.proj.weight.T + layer.proj.bias


@pytest.mark.parametrize('qkv_bias', ['qv', 'qkv', 'none'])
@pytest.mark.parametrize('inner_norm', [False, True])
@pytest.mark.parametrize('with_rope', [False, True])
def test_attention_matches_formula(qkv_bias, inner_norm, with_rope):
    layer = Attention(32, 4, qkv_bias=qkv_bias, inner_norm=inner_norm).double()
    for param in layer.parameters():
        torch.nn.init.normal_(param)
    x = torch.randn(2, 7, 32, dtype=torch.float64)
    rope = rope_table(2, 3, 8, dtype=torch.float64) if with_rope else None
    torch.testing.assert_close(layer(x, rope), attention_by_formula(layer, x, rope))


@pytest.mark.parametrize('norm', [False, True])
def test_swiglu_gates_with_its_first_rows(norm):
    layer = SwiGLU(8, 6, norm=norm).double()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    gate, value = (x @ layer.w12.weight.T + layer.w12.bias).chunk(2, -1)
    hidden = gate * torch.sigmoid(gate) * value
    if norm:
        torch.nn.init.normal_(layer.norm.weight)
        mean, var = hidden.mean(-1, keepdim=True), hidden.var(-1, keepdim=True, unbiased=False)
        hidden = (hidden - mean) / (var + 1e-6).sqrt() * layer.norm.weight + layer.norm.bias
    torch.testing.assert_close(layer(x), hidden @ layer.w3.weight.T + layer.w3.bias)


def test_mlp_uses_the_exact_gelu():
    layer = MLP(4, 5).double()
    x = torch.randn(3, 4, dtype=torch.float64) * 3
    hidden = x @ layer.fc1.weight.T + layer.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(layer(x), hidden @ layer.fc2.weight.T + layer.fc2.bias)


def test_patch_embed_order_is_row_major():
    layer = PatchEmbed(5, 2)
    x = torch.randn(1, 3, 4, 6)
    tokens, grid = layer(x)
    assert grid == (2, 3)
    patch = x[:, :, 2:4, 4:6]  # row 1, column 2
    expected = (layer.proj.weight * patch).sum((1, 2, 3)) + layer.proj.bias
    torch.testing.assert_close(tokens[0, 5], expected)
    with pytest.raises(ValueError, match='5x6.*patch_size=2'):
        layer(torch.zeros(1, 3, 5, 6))


@pytest.mark.parametrize('grid', [(4, 6), (5, 7), (3, 1)])
def test_windows_round_trip_and_hold_neighbours(grid):
    rows, cols = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing='ij')
    x = torch.stack((rows, cols), -1).flatten(0, 1)[None].float() + 1  # [1, N, 2]; 0 marks padding
    windows, padded = window_partition(x, grid, 2)
    assert windows.shape == (padded[0] * padded[1] // 4, 4, 2)
    for window in windows:
        real = window[window[:, 0] > 0] - 1
        assert (real // 2).unique(dim=0).shape[0] == 1  # all from one 2x2 square
    assert torch.equal(window_unpartition(windows, grid, padded, 2), x)


def test_drop_path_keeps_the_expectation_and_drops_whole_samples():
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    out = layer(torch.ones(4000, 2, 3))
    values = out.flatten(1)
    assert (values == values[:, :1]).all()
    torch.testing.assert_close(values[:, 0].unique(), torch.tensor([0.0, 4 / 3]))
    assert abs(values[:, 0].mean() - 1) < 0.04
    x = torch.randn(2, 3)
    assert torch.equal(layer.eval()(x), x)
    with pytest.raises(ValueError, match='drop_path_rate=1.0'):
        DropPath(1.0)


def test_drop_path_of_all_blocks_in_one_draw():
    torch.manual_seed(0)
    scales = draw_drop_path((0.0, 0.25, 0.5), 4000, torch.device('cpu'))
    assert scales.shape == (3, 2, 4000, 1, 1)
    assert (scales[0] == 1).all()
    for layer, keep in ((1, 0.75), (2, 0.5)):
        kept = scales[layer] != 0
        assert torch.allclose(scales[layer][kept], torch.tensor(1 / keep))
        assert kept.float().mean((1, 2, 3)).tolist() == pytest.approx([keep, keep], abs=0.03)
    assert not torch.equal(scales[2, 0], scales[2, 1])  # the two branches are drawn apart
    x = torch.randn(4000, 2, 3)
    assert torch.equal(DropPath(0.5)(x, scales[2, 0]), x * scales[2, 0])


def test_block_order_of_norms_and_gains():
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    pre = Block(16, 2, 8, layer_scale=0.5).double()
    y = x + 0.5 * pre.attn(pre.norm1(x))
    torch.testing.assert_close(pre(x), y + 0.5 * pre.mlp(pre.norm2(y)))
    post = Block(16, 2, 8, ffn='mlp', post_norm=True).double()
    for norm in (post.norm1, post.norm2):
        torch.nn.init.normal_(norm.weight)
    y = x + post.norm1(post.attn(x))
    torch.testing.assert_close(post(x), y + post.norm2(post.mlp(y)))


def test_windowed_block_attends_inside_windows_after_the_norm():
    block = Block(16, 2, 8, window_size=2).double()
    rope = rope_table(2, 2, 8, prefix_tokens=0, dtype=torch.float64)
    x = torch.randn(1, 6, 16, dtype=torch.float64)  # grid 2x3: the second window is half padding
    normed = block.norm1(x).view(2, 3, 16)
    padded = torch.zeros(2, 4, 16, dtype=torch.float64)
    padded[:, :3] = normed
    attended = torch.zeros(2, 4, 16, dtype=torch.float64)
    for col in (0, 2):
        window = padded[:, col : col + 2].reshape(1, 4, 16)
        attended[:, col : col + 2] = block.attn(window, rope).view(2, 2, 16)
    y = x + attended[:, :3].reshape(1, 6, 16)
    torch.testing.assert_close(block(x, rope, (2, 3)), y + block.mlp(block.norm2(y)))
