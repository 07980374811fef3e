"""Decomposed relative positions against loops over queries and keys, in float64."""

import pytest
import torch

from evamm.checkpoints import rel_pos_map
from evamm.models.layers import Attention, Block, relative_position, rope_table

GRID = (3, 4)


def build(grid=GRID, **options):
    torch.manual_seed(0)
    layer = Attention(16, 2, rel_pos_grid=grid, **options).double()
    for param in layer.parameters():
        torch.nn.init.normal_(param, std=0.3)
    return layer


def by_loops(layer, x, grid, tables=None):
    """Every pair alone; one sample."""
    tables = tables or (layer.rel_pos_h, layer.rel_pos_w)
    heads, dims = layer.num_heads, x.shape[-1] // layer.num_heads
    qkv = x @ layer.qkv.weight.T + layer.packed_bias()
    q, k, v = qkv.unflatten(-1, (3, heads, dims)).unbind(1)
    places = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    logits = torch.zeros(heads, len(places), len(places), dtype=x.dtype)
    for i, (y, x) in enumerate(places):
        for j, (y2, x2) in enumerate(places):
            vector = tables[0][y - y2 + grid[0] - 1] + tables[1][x - x2 + grid[1] - 1]
            logits[:, i, j] = (q[i] * (k[j] / dims**0.5 + vector)).sum(-1)
    out = torch.einsum('hnm,mhd->nhd', logits.softmax(-1), v).flatten(1)
    return layer.proj(out)


@pytest.fixture(params=['matrix', 'channels'])
def path(request, monkeypatch):
    monkeypatch.setattr(
        relative_position, '_MAX_MATRIX', {'matrix': 1024, 'channels': 0}[request.param]
    )


def test_equals_loops(path):
    layer, x = build(), torch.randn(2, 12, 16, dtype=torch.float64)
    expected = torch.stack([by_loops(layer, one, GRID) for one in x])
    torch.testing.assert_close(layer(x, grid=GRID), expected)


@pytest.mark.parametrize('rule', ['linear', 'geometric'])
def test_equals_loops_at_another_grid(path, rule):
    layer, x = build((4, 4)), torch.randn(1, 10, 16, dtype=torch.float64)
    maps = (rel_pos_map(7, 3, rule), rel_pos_map(7, 9, rule))
    tables = (maps[0] @ layer.rel_pos_h, maps[1] @ layer.rel_pos_w)
    expected = by_loops(layer, x[0], (2, 5), tables)
    torch.testing.assert_close(layer(x, grid=(2, 5), rel_pos_maps=maps)[0], expected)


def test_gradients(path):
    layer = build((2, 2))
    maps = (rel_pos_map(3, 5), None)
    x = torch.randn(1, 6, 16, dtype=torch.float64, requires_grad=True)

    def run(x, rows, columns, weight):
        tensors = {'rel_pos_h': rows, 'rel_pos_w': columns, 'qkv.weight': weight}
        options = dict(grid=(3, 2), rel_pos_maps=maps)
        return torch.func.functional_call(layer, tensors, (x,), options)

    inputs = (x, layer.rel_pos_h, layer.rel_pos_w, layer.qkv.weight)
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_both_ways_are_one(monkeypatch):
    layer, x = build(), torch.randn(2, 12, 16, dtype=torch.float64)
    found = []
    for limit in (1024, 0):
        monkeypatch.setattr(relative_position, '_MAX_MATRIX', limit)
        layer.zero_grad()
        out = layer(x, grid=GRID)
        out.square().sum().backward()
        found.append([out, *(param.grad for param in layer.parameters())])
    torch.testing.assert_close(*found)


def test_queries_are_taken_after_their_rotation(path):
    layer, x = build((2, 3)), torch.randn(1, 6, 16, dtype=torch.float64)
    table = rope_table(2, 3, 8, prefix_tokens=0, dtype=torch.float64)
    assert not torch.allclose(layer(x, table, grid=(2, 3)), layer(x, grid=(2, 3)))
    torch.nn.init.zeros_(layer.rel_pos_h)
    torch.nn.init.zeros_(layer.rel_pos_w)
    plain = Attention(16, 2).double()
    plain.load_state_dict(layer.state_dict(), strict=False)
    torch.testing.assert_close(layer(x, table, grid=(2, 3)), plain(x, table))


def test_a_windowed_block_has_tables_for_a_window():
    block = Block(16, 2, 8, ffn='mlp', window_size=2, rel_pos_grid=(5, 7)).double()
    assert block.attn.rel_pos_h.shape == block.attn.rel_pos_w.shape == (3, 8)
    torch.nn.init.normal_(block.attn.rel_pos_h)
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    normed = torch.zeros(2, 4, 16, dtype=torch.float64)
    normed[:, :3] = block.norm1(x).view(2, 3, 16)
    attended = torch.zeros_like(normed)
    for column in (0, 2):
        window = normed[:, column : column + 2].reshape(4, 16)
        attended[:, column : column + 2] = by_loops(block.attn, window, (2, 2)).view(2, 2, 16)
    y = x + attended[:, :3].reshape(1, 6, 16)
    torch.testing.assert_close(block(x, grid=(2, 3)), y + block.mlp(block.norm2(y)))


def test_a_table_of_another_size_is_named():
    with pytest.raises(
        ValueError, match='table of 5 relative positions is for 3 tokens.*not for 6'
    ):
        build()(torch.zeros(1, 12, 16, dtype=torch.float64), grid=(6, 2))


def test_weights_of_a_map_are_not_rounded_to_half_precision():
    layer = build((8, 8)).float()
    maps = [rel_pos_map(15, 23, 'geometric', dtype=torch.float32)] * 2
    exact = relative_position.position_vectors(layer.rel_pos_h, 12, maps[0])
    with torch.autocast('cpu', torch.bfloat16):
        found = relative_position.position_vectors(layer.rel_pos_h, 12, maps[0])
    assert torch.equal(found, exact)
