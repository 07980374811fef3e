"""RoPE against a loop over tokens, pairs and axes."""

import math

import pytest
import torch

from evamm.models.layers import apply_rope, rope_table


def rotate_by_hand(x, height, width, prefix, reference=16):
    """x: [B, N, h, d]; one token, one pair at a time, in float64."""
    out = x.clone()
    half = x.shape[-1] // 2
    for row in range(height):
        for col in range(width):
            token = prefix + row * width + col
            for pair in range(half):
                axis, index = divmod(pair, half // 2)
                coord = (row / height, col / width)[axis] * reference
                angle = coord * 10000 ** (-2 * index / half)
                a, b = x[:, token, :, 2 * pair], x[:, token, :, 2 * pair + 1]
                out[:, token, :, 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
                out[:, token, :, 2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
    return out


@pytest.mark.parametrize('height, width, prefix', [(16, 16, 1), (5, 3, 1), (24, 24, 0), (1, 7, 2)])
def test_matches_loop(height, width, prefix):
    x = torch.randn(2, prefix + height * width, 3, 16, dtype=torch.float64)
    table = rope_table(height, width, 16, prefix_tokens=prefix, dtype=torch.float64)
    torch.testing.assert_close(
        apply_rope(x, table), rotate_by_hand(x, height, width, prefix), rtol=1e-5, atol=3e-6
    )


def test_prefix_tokens_are_not_rotated():
    x = torch.randn(2, 1 + 9, 4, 8)
    out = apply_rope(x, rope_table(3, 3, 8))
    assert torch.equal(out[:, 0], x[:, 0])
    assert not torch.allclose(out[:, -1], x[:, -1])


def test_compiled_formula_equals_eager():
    x = torch.randn(2, 17, 2, 3, 16, requires_grad=True)
    table = rope_table(4, 4, 16)
    compiled = torch.compile(apply_rope, backend='aot_eager', fullgraph=True)
    expected, found = apply_rope(x, table), compiled(x, table)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    weight = torch.randn_like(expected)
    grads = [torch.autograd.grad(out, x, weight)[0] for out in (expected, found)]
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-6, atol=1e-6)


def test_low_precision_input_is_rotated_in_fp32():
    x = torch.randn(1, 5, 2, 8)
    table = rope_table(2, 2, 8)
    low = apply_rope(x.bfloat16(), table)
    assert low.dtype == torch.bfloat16
    assert torch.equal(low, apply_rope(x.bfloat16().float(), table).bfloat16())


def test_table_made_in_inference_mode_can_be_trained_with():
    with torch.inference_mode():
        rope_table(7, 9, 8)
    x = torch.randn(1, 64, 1, 8, requires_grad=True)
    apply_rope(x, rope_table(7, 9, 8)).sum().backward()
    assert x.grad is not None


def test_gradient():
    x = torch.randn(1, 5, 1, 8, dtype=torch.float64, requires_grad=True)
    table = rope_table(2, 2, 8, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda value: apply_rope(value, table), (x,))
