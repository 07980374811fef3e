"""Rotation of q and k, and SwiGLU's product: the results of the plain formulas with less memory."""

import pytest
import torch
import torch.nn.functional as F

from evamm.models.layers import apply_rope, rope_table
from evamm.models.layers.ffn import gated_product
from evamm.models.layers.rotate_qkv import rotate_qkv

HEAD = 8


def table_of(per_sample: bool, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    table = rope_table(2, 3, HEAD, dtype=dtype)  # [7, 4, 2]
    if not per_sample:
        return table
    return torch.stack((table, table.flip(0)))  # [2, 7, 4, 2]


def plain_rotation(qkv: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if table.ndim == 4:
        parts = [plain_rotation(x[None], t) for x, t in zip(qkv, table, strict=True)]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))
    q, k, v = qkv.unbind(2)
    return apply_rope(q, table), apply_rope(k, table), v


def plain_product(packed: torch.Tensor) -> torch.Tensor:
    gate, value = packed.chunk(2, dim=-1)
    return F.silu(gate) * value


def gradient(function, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Result and gradient; ``x`` is made by a product, as in a model."""
    leaf = x.clone().requires_grad_()
    results = function(leaf * 1)
    results = results if isinstance(results, tuple) else (results,)
    out = torch.cat([result.flatten() for result in results])
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype)
    (out * weights).sum().backward()
    return out.detach(), leaf.grad


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('per_sample', [False, True])
def test_rotation_equals_the_formula(dtype: torch.dtype, per_sample: bool) -> None:
    table = table_of(per_sample)
    x = torch.randn(2, 7, 3, 2, HEAD).to(dtype)
    found = gradient(lambda qkv: rotate_qkv(qkv, table), x)
    expected = gradient(lambda qkv: plain_rotation(qkv, table), x)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_rotation_of_heads_first_gradients() -> None:
    """Attention hands back gradients in any memory layout."""
    table = table_of(False)
    x = torch.randn(2, 7, 3, 2, HEAD)

    def attend(rotate):
        def function(qkv):
            q, k, v = (y.transpose(1, 2) for y in rotate(qkv, table))
            return F.scaled_dot_product_attention(q, k, v)

        return function

    for a, b in zip(gradient(attend(rotate_qkv), x), gradient(attend(plain_rotation), x)):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_first_and_second_derivatives() -> None:
    table = table_of(False, torch.float64)
    x = torch.randn(1, 7, 3, 1, HEAD, dtype=torch.float64, requires_grad=True)
    packed = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    for function, value in (
        (lambda qkv: rotate_qkv(qkv * 1, table), x),
        (gated_product, packed),
    ):
        assert torch.autograd.gradcheck(function, (value,))
        assert torch.autograd.gradgradcheck(function, (value,))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_product_equals_the_formula(dtype: torch.dtype) -> None:
    x = torch.randn(2, 5, 12).to(dtype)
    for found, expected in zip(gradient(gated_product, x), gradient(plain_product, x)):
        assert torch.equal(found, expected)


def test_function_transforms_take_the_plain_way() -> None:
    table = table_of(False)
    x = torch.randn(2, 7, 3, 2, HEAD)
    kept = x.clone()

    def loss(qkv):
        return sum(part.square().sum() for part in rotate_qkv(qkv[None] * 1, table))

    found = torch.func.vmap(torch.func.grad(loss))(x)
    torch.testing.assert_close(found, 2 * kept)
    packed = torch.randn(3, 6)
    _, found = torch.func.jvp(gated_product, (packed,), (torch.ones_like(packed),))
    _, expected = torch.func.jvp(plain_product, (packed,), (torch.ones_like(packed),))
    torch.testing.assert_close(found, expected)


def test_a_leaf_that_wants_gradients_is_left_alone() -> None:
    x = torch.randn(2, 7, 3, 2, HEAD, requires_grad=True)
    kept = x.detach().clone()
    rotate_qkv(x, table_of(False))[0].sum().backward()
    assert torch.equal(x, kept) and x.grad is not None


def saved_bytes(function, x: torch.Tensor) -> int:
    """Memory kept for the backward pass besides ``x`` and the results."""
    known = {x.untyped_storage().data_ptr()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        results = function(x)
        results = results if isinstance(results, tuple) else (results,)
        F.scaled_dot_product_attention(*results) if len(results) == 3 else results[0].square()
    return sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in known)


def test_memory() -> None:
    table = table_of(False)
    x = torch.randn(16, 7, 3, 2, HEAD, requires_grad=True) * 1
    part = x.nbytes // 3
    # q, k and v stay where they were; attention keeps its result and a number per row.
    assert saved_bytes(lambda qkv: rotate_qkv(qkv, table), x) < 1.5 * part
    packed = torch.randn(16, 8, requires_grad=True) * 1
    assert saved_bytes(gated_product, packed) == packed.nbytes // 2  # only the square's input
