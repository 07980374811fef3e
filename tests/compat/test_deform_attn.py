"""Multi-scale deformable attention against its definition, sample by sample."""

import math

import pytest
import torch

from evamm.compat.mmcv_ext.deform_attn import ms_deform_attn_backward, ms_deform_attn_forward

SHAPES = [(5, 7), (3, 2)]


def make_inputs(device: str = 'cpu') -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    batch, heads, dims, queries, points = 2, 3, 4, 5, 2
    keys = sum(height * width for height, width in SHAPES)
    value = torch.randn(batch, keys, heads, dims, generator=generator, dtype=torch.float64)
    shape = (batch, queries, heads, len(SHAPES), points)
    # From -0.3 to 1.3: some samples lie outside the map.
    locations = torch.rand(*shape, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    weights = torch.rand(shape, generator=generator, dtype=torch.float64)
    starts = torch.tensor([0, SHAPES[0][0] * SHAPES[0][1]])
    tensors = value, torch.tensor(SHAPES), starts, locations, weights
    return tuple(tensor.to(device) for tensor in tensors)


def definition(value, shapes, starts, locations, weights):
    batch, _, heads, dims = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    output = torch.zeros(batch, queries, heads, dims, dtype=torch.float64)
    for b, q, m, level, p in torch.cartesian_prod(
        *[torch.arange(n) for n in (batch, queries, heads, len(shapes), points)]
    ).tolist():
        height, width = shapes[level].tolist()
        x, y = locations[b, q, m, level, p].tolist()
        x, y = x * width - 0.5, y * height - 0.5
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < height and 0 <= column < width:
                    place = starts[level] + row * width + column
                    share = (1 - abs(y - row)) * (1 - abs(x - column)) * weights[b, q, m, level, p]
                    output[b, q, m] += share * value[b, place, m]
    return output.flatten(2)


def test_forward_equals_the_definition() -> None:
    inputs = make_inputs()
    output = ms_deform_attn_forward(*inputs, im2col_step=64)
    torch.testing.assert_close(output, definition(*inputs), rtol=1e-10, atol=1e-10)
    single = [tensor.float() if tensor.is_floating_point() else tensor for tensor in inputs]
    torch.testing.assert_close(
        ms_deform_attn_forward(*single, im2col_step=1).double(), output, rtol=1e-5, atol=1e-5
    )


def test_gradients_equal_finite_differences() -> None:
    value, shapes, starts, locations, weights = make_inputs()

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value, locations, weights):
            ctx.save_for_backward(value, locations, weights)
            return ms_deform_attn_forward(value, shapes, starts, locations, weights, im2col_step=64)

        @staticmethod
        def backward(ctx, grad):
            value, locations, weights = ctx.saved_tensors
            grads = [torch.zeros_like(tensor) for tensor in ctx.saved_tensors]
            ms_deform_attn_backward(
                value, shapes, starts, locations, weights, grad, *grads, im2col_step=64
            )
            return tuple(grads)

    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    assert torch.autograd.gradcheck(Attention.apply, inputs, fast_mode=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cuda_equals_cpu() -> None:
    output = ms_deform_attn_forward(*make_inputs('cuda'), im2col_step=64)
    torch.testing.assert_close(output.cpu(), ms_deform_attn_forward(*make_inputs(), im2col_step=64))


def test_module_of_mmcv_agrees() -> None:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    import evamm.registry  # noqa: F401  installs the operators

    value, shapes, starts, locations, weights = make_inputs()
    theirs = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    ours = ms_deform_attn_forward(value, shapes, starts, locations, weights, im2col_step=64)
    torch.testing.assert_close(ours, theirs)
