"""RoIAlign against its definition, sample by sample in double precision."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from evamm.compat.mmcv_ext import roi_align as module
from evamm.compat.mmcv_ext.roi_align import roi_align_backward, roi_align_forward

MAXIMUM, MEAN = 0, 1

# Image, then corners in pixels of an image four times the feature map of 9 x 13 cells
ROIS = [
    [0, 3.0, 2.0, 30.0, 20.0],
    [1, 0.0, 0.0, 51.9, 35.9],  # the whole image
    [0, -30.0, -20.0, 14.0, 9.0],  # partly outside, upper left
    [1, 40.0, 30.0, 90.0, 70.0],  # partly outside, lower right
    [0, 200.0, 200.0, 260.0, 230.0],  # outside altogether
    [1, 10.0, 11.0, 10.0, 11.0],  # without area
    [0, 6.0, 7.0, 6.0, 30.0],  # without width
    [0, 5.0, 5.0, 6.0, 5.5],  # much smaller than a cell
]


class RoIAlign(torch.autograd.Function):
    """The two functions, called as mmcv calls them."""

    @staticmethod
    def forward(ctx, features, rois, size, scale, ratio, mode, aligned):
        shape = (len(rois), features.shape[1], *size)
        output = features.new_zeros(shape)
        argmax_y, argmax_x = (features.new_zeros(shape if mode == MAXIMUM else 0) for _ in 'yx')
        ctx.options = dict(
            aligned_height=size[0],
            aligned_width=size[1],
            spatial_scale=scale,
            sampling_ratio=ratio,
            pool_mode=mode,
            aligned=aligned,
        )
        roi_align_forward(features, rois, output, argmax_y, argmax_x, **ctx.options)
        ctx.save_for_backward(rois, argmax_y, argmax_x)
        ctx.shape = features.shape
        return output

    @staticmethod
    def backward(ctx, grad):
        grad_input = grad.new_zeros(ctx.shape)
        roi_align_backward(grad, *ctx.saved_tensors, grad_input, **ctx.options)
        return grad_input, *[None] * 6


def bilinear(plane: list[list[float]], y: float, x: float) -> float:
    height, width = len(plane), len(plane[0])
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    value = 0.0
    for row, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            if weight_y and weight_x:
                value += weight_y * weight_x * plane[row][column]
    return value


def pool(
    features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, mode: int,
    aligned: bool,
) -> Tensor:  # fmt: skip
    """The definition, with four nested loops."""
    output = torch.zeros(len(rois), features.shape[1], *size, dtype=torch.float64)
    for k, (image, *corners) in enumerate(rois.double().tolist()):
        x1, y1, x2, y2 = (corner * scale - (0.5 if aligned else 0.0) for corner in corners)
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1.0), max(width, 1.0)
        bins = height / size[0], width / size[1]
        grid = [ratio if ratio > 0 else math.ceil(length) for length in bins]
        for channel, row, column in torch.cartesian_prod(
            *[torch.arange(n) for n in output.shape[1:]]
        ).tolist():
            plane = features[int(image), channel].double().tolist()
            samples = [
                bilinear(
                    plane,
                    y1 + (row + (i + 0.5) / grid[0]) * bins[0],
                    x1 + (column + (j + 0.5) / grid[1]) * bins[1],
                )
                for i in range(grid[0])
                for j in range(grid[1])
            ]
            if samples:
                value = max(samples) if mode == MAXIMUM else sum(samples) / len(samples)
                output[k, channel, row, column] = value
    return output


def random_features(dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 9, 13, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 1, 2])
@pytest.mark.parametrize('mode', [MEAN, MAXIMUM])
def test_forward_equals_the_definition(mode: int, ratio: int, aligned: bool) -> None:
    rois = torch.tensor(ROIS)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        features = random_features(dtype)
        output = RoIAlign.apply(features, rois.to(dtype), (2, 3), 0.25, ratio, mode, aligned)
        expected = pool(features, rois, (2, 3), 0.25, ratio, mode, aligned)
        assert output.dtype == dtype
        torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('mode', [MEAN, MAXIMUM])
def test_chunks_do_not_change_the_result(mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features = random_features(torch.float64).requires_grad_()
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(40, 2, generator=generator, dtype=torch.float64) * 30
    sizes = torch.rand(40, 2, generator=generator, dtype=torch.float64) * 30
    rois = torch.cat([torch.arange(40)[:, None] % 2, corners, corners + sizes], dim=1)
    results = []
    for numel in (2**24, 600):
        monkeypatch.setattr(module, '_CHUNK_NUMEL', numel)
        monkeypatch.setattr(module, '_CHUNK_WEIGHTS', numel)
        output = RoIAlign.apply(features, rois, (3, 2), 0.25, 0, mode, True)
        (grad,) = torch.autograd.grad(output.square().sum(), features)
        results.append((output, grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('mode', [MEAN, MAXIMUM])
def test_gradient_equals_finite_differences(mode: int, ratio: int) -> None:
    features = random_features(torch.float64).requires_grad_()
    rois = torch.tensor(ROIS, dtype=torch.float64)
    for aligned in (True, False):
        assert torch.autograd.gradcheck(
            lambda x, aligned=aligned: RoIAlign.apply(x, rois, (2, 2), 0.25, ratio, mode, aligned),
            features,
            fast_mode=True,
        )


def test_gradient_is_added_to_what_is_there() -> None:
    rois = torch.tensor([[0.0, 4, 4, 20, 20]])
    grad_input = torch.full((1, 1, 9, 13), 5.0)
    empty = torch.zeros(0)
    roi_align_backward(
        torch.ones(1, 1, 1, 1), rois, empty, empty, grad_input,
        aligned_height=1, aligned_width=1, spatial_scale=0.25, sampling_ratio=2, pool_mode=MEAN,
        aligned=True,
    )  # fmt: skip
    assert (grad_input - 5).sum().item() == pytest.approx(1.0)


def test_a_constant_map_pools_to_the_constant() -> None:
    rois = torch.tensor([[0.0, 5, 6, 44, 31], [0, 8, 8, 9, 9]])
    output = RoIAlign.apply(torch.full((1, 4, 9, 13), 2.5), rois, (7, 7), 0.25, 0, MEAN, True)
    torch.testing.assert_close(output, torch.full((2, 4, 7, 7), 2.5))


def test_half_precision_places_samples_in_single() -> None:
    # At column 1000 the neighbouring half-precision numbers lie a whole half cell apart.
    features = torch.arange(1024.0).expand(1, 1, 3, 1024)
    rois = torch.tensor([[0, 2000.5, 2.0, 2004.5, 4.0]])
    exact = RoIAlign.apply(features, rois, (1, 2), 0.5, 2, MEAN, True)
    half = RoIAlign.apply(features.half(), rois, (1, 2), 0.5, 2, MEAN, True)
    torch.testing.assert_close(half.float(), exact, rtol=1e-3, atol=0)
    torch.testing.assert_close(exact.flatten(), torch.tensor([1000.25, 1001.25]))


@pytest.mark.parametrize('mode', [MEAN, MAXIMUM])
def test_no_boxes(mode: int) -> None:
    features = random_features(torch.float32).requires_grad_()
    output = RoIAlign.apply(features, torch.zeros(0, 5), (7, 7), 0.25, 0, mode, True)
    assert output.shape == (0, 3, 7, 7)
    output.sum().backward()
    assert not features.grad.any()


class LargestTensor(TorchDispatchMode):
    """Remembers how many numbers the largest tensor made inside has."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_dense_sampling_never_holds_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    # 30 boxes of 80 x 80 cells in 7 x 7 bins have 12 x 12 samples a bin: 3.4 million numbers.
    features = torch.randn(1, 16, 90, 90)
    rois = torch.tensor([[0.0, 3, 3, 83, 83]]).repeat(30, 1)
    monkeypatch.setattr(module, '_CHUNK_WEIGHTS', 2**18)
    output = torch.zeros(30, 16, 7, 7)
    options = dict(aligned_height=7, aligned_width=7, spatial_scale=1.0, sampling_ratio=0,
                   pool_mode=MEAN, aligned=True)  # fmt: skip
    with LargestTensor() as forward:
        roi_align_forward(features, rois, output, output[:0], output[:0], **options)
    with LargestTensor() as backward:
        roi_align_backward(output, rois, output[:0], output[:0], features, **options)
    assert max(forward.numel, backward.numel) <= 2**18


def test_agrees_with_torchvision_where_its_operators_load() -> None:
    torchvision = pytest.importorskip('torchvision')
    if not torchvision.extension._has_ops():
        pytest.skip('the operators of torchvision do not load beside this torch')
    features = random_features(torch.float32).requires_grad_()
    rois = torch.tensor(ROIS)
    for aligned in (True, False):
        theirs = torchvision.ops.roi_align(features, rois, (7, 7), 0.25, 0, aligned)
        ours = RoIAlign.apply(features, rois, (7, 7), 0.25, 0, MEAN, aligned)
        torch.testing.assert_close(ours, theirs)
        grads = [torch.autograd.grad(out.square().sum(), features) for out in (ours, theirs)]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


class Kernels:
    """Stands for torchvision's operators, with their arguments in their order."""

    def __init__(self) -> None:
        self.asked = []

    def find(self, name: str, device_type: str) -> Callable:
        self.asked.append(name)
        return {'roi_align': self.pool, '_roi_align_backward': self.spread}[name]

    @staticmethod
    def pool(
        input: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int,
        sampling_ratio: int, aligned: bool,
    ) -> Tensor:  # fmt: skip
        assert input.dtype == rois.dtype  # else it raises
        size = pooled_height, pooled_width
        pooled = pool(input, rois, size, spatial_scale, sampling_ratio, MEAN, aligned)
        return pooled.to(input.dtype)

    @staticmethod
    def spread(
        grad: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int,
        batch_size: int, channels: int, height: int, width: int, sampling_ratio: int, aligned: bool,
    ) -> Tensor:  # fmt: skip
        assert grad.dtype == rois.dtype
        size = pooled_height, pooled_width
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, 'compiled', lambda *key: None)
            inputs = grad.new_zeros(batch_size, channels, height, width).requires_grad_()
            with torch.enable_grad():
                output = RoIAlign.apply(
                    inputs, rois, size, spatial_scale, sampling_ratio, MEAN, aligned
                )
            return torch.autograd.grad(output, inputs, grad)[0]


@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_compiled_kernels_are_asked_where_there_are_some(ratio, aligned, dtype, monkeypatch):
    assert module.compiled('roi_align', 'cpu') is None
    features, rois = random_features(dtype).requires_grad_(), torch.tensor(ROIS, dtype=dtype)

    def compute(mode: int) -> tuple[Tensor, Tensor]:
        output = RoIAlign.apply(features, rois, (2, 3), 0.25, ratio, mode, aligned)
        return output, *torch.autograd.grad(output.float().square().sum(), features)

    expected, largest = compute(MEAN), compute(MAXIMUM)
    kernels = Kernels()
    monkeypatch.setattr(module, 'compiled', kernels.find)
    torch.testing.assert_close(compute(MEAN), expected, rtol=1e-2, atol=1e-2)
    assert kernels.asked == ['roi_align', '_roi_align_backward']
    torch.testing.assert_close(compute(MAXIMUM), largest)  # they know no maximum
    monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: True)
    compute(MEAN)
    assert kernels.asked == ['roi_align', '_roi_align_backward', 'roi_align']


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('plain', [True, False], ids=['plain', 'compiled'])
@pytest.mark.parametrize('mode', [MEAN, MAXIMUM])
def test_cuda_equals_cpu(mode: int, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if plain:
        monkeypatch.setattr(module, 'compiled', lambda *key: None)
    results = []
    for device in ('cpu', 'cuda'):
        features = random_features(torch.float32).to(device).requires_grad_()
        rois = torch.tensor(ROIS, device=device)
        output = RoIAlign.apply(features, rois, (2, 3), 0.25, 0, mode, True)
        (grad,) = torch.autograd.grad(output.square().sum(), features)
        results.append((output.cpu(), grad.cpu()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)
