"""RoIAlign: `roi_align_forward` and `roi_align_backward` of `mmcv._ext`.

He et al., "Mask R-CNN" (arXiv 1703.06870), with the half-cell shift of detectron2 (`aligned`).

The value of a bin is the mean (or the maximum) of bilinear samples on a regular grid. Bilinear
sampling on a grid is separable, and a mean commutes with it: a bin is a weighted sum of the cells
under it, and each weight is the product of one for its row and one for its column. `embedding_bag`
adds up such sums without ever holding the cells or the samples of a bin. The gradient of a cell is
likewise a weighted sum of the bins over it, so that every number is written once.

A maximum does not commute: its samples are `rows @ window @ columns^T` for the window of cells
under a box. Boxes are worked off in chunks of similar size, which bounds the memory however dense
the sampling is.

On a GPU torchvision's kernels compute the mean; every chunk would wait for the device.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .torchvision_kernels import compiled

__all__ = ['roi_align_backward', 'roi_align_forward']

_MAXIMUM = 0

# Numbers in the windows and samples of one chunk of boxes for the maximum; 64 MiB in fp32.
_CHUNK_NUMEL = 2**24
# Weights of cells in the bins of one chunk of boxes for the mean; 12 MiB with the cells' numbers.
_CHUNK_WEIGHTS = 2**20


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pools the features under each box into `aligned_height x aligned_width` bins.

    A bin without samples (a box without area under adaptive sampling) is 0.

    Args:
        input: `[N, C, H, W]`.
        rois: `[K, 5]`, index of the image, then corners x1, y1, x2, y2 in pixels of the image.
        output: `[K, C, PH, PW]`, written.
        argmax_y: `[K, C, PH, PW]`, written for the maximum: row of the best sample, -1 if none.
        argmax_x: likewise its column.
        spatial_scale: cells per pixel.
        sampling_ratio: samples per bin and axis; 0: as many as the bin has cells, rounded up.
        pool_mode: 0 maximum, 1 mean.
        aligned: shift by half a cell; without it a box is at least one cell large.
    """
    pooled = (aligned_height, aligned_width)
    kernel = compiled('roi_align', input.device.type) if pool_mode != _MAXIMUM else None
    if kernel is not None:
        dtype = _place_dtype(input.dtype)
        mean = kernel(
            input.to(dtype), rois.to(dtype), spatial_scale, *pooled, sampling_ratio, aligned
        )
        output.copy_(mean)
        return
    boxes = _Boxes(rois, input.dtype, spatial_scale, aligned)
    cells = input.permute(0, 2, 3, 1).reshape(-1, input.shape[1])  # [N*H*W, C]
    if pool_mode != _MAXIMUM:
        # Row by row in memory: many times faster.
        cells = cells.to(boxes.dtype).contiguous()
        for bags in _bags(boxes, input.shape, pooled, sampling_ratio):
            mean = F.embedding_bag(
                bags.cells.flatten(0, 2),
                cells,
                mode='sum',
                per_sample_weights=bags.weights.flatten(0, 2),
            ).unflatten(0, bags.cells.shape[:3])  # [K, PH, PW, C]
            output[bags.index] = mean.permute(0, 3, 1, 2).to(output.dtype)
        return
    for chunk in _chunks(boxes, input.shape, pooled, sampling_ratio):
        window = cells[chunk.cells].to(boxes.dtype)  # [K, h, w, C]
        samples = _sample(chunk.rows.per_sample, window, chunk.columns.per_sample)
        best, row, column = _maximum_per_bin(samples, chunk)
        argmax_y[chunk.index] = row.to(argmax_y.dtype)
        argmax_x[chunk.index] = column.to(argmax_x.dtype)
        output[chunk.index] = best.to(output.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Adds the gradient of `roi_align_forward` to `grad_input` `[N, C, H, W]`.

    Args:
        grad_output: `[K, C, PH, PW]`.
        argmax_y: `[K, C, PH, PW]` as written by the forward pass, for the maximum.
        argmax_x: likewise.
    """
    pooled = (aligned_height, aligned_width)
    kernel = None
    # It adds in any order, so that the last bits differ from run to run.
    if pool_mode != _MAXIMUM and not torch.are_deterministic_algorithms_enabled():
        kernel = compiled('_roi_align_backward', grad_output.device.type)
    if kernel is not None:
        dtype = _place_dtype(grad_output.dtype)
        grad_input += kernel(
            grad_output.to(dtype), rois.to(dtype), spatial_scale, *pooled, *grad_input.shape,
            sampling_ratio, aligned,
        ).to(grad_input.dtype)  # fmt: skip
        return
    boxes = _Boxes(rois, grad_output.dtype, spatial_scale, aligned)
    if pool_mode == _MAXIMUM:
        _scatter_maximum(grad_output, boxes, argmax_y, argmax_x, grad_input)
        return
    count, channels, height, width = grad_input.shape
    grad_cells = grad_output.new_zeros(count * height * width, channels, dtype=boxes.dtype)
    for bags in _bags(boxes, grad_input.shape, pooled, sampling_ratio):
        grad = grad_output[bags.index].to(boxes.dtype).permute(0, 2, 3, 1)  # [K, PH, PW, C]
        weights = bags.weights.flatten()
        used = weights.nonzero().squeeze(1)
        # The same bags the other way round: for each cell the bins that it is in.
        cell, order = bags.cells.flatten()[used].int().sort()
        used = used[order]
        cell, count_in = cell.unique_consecutive(return_counts=True)
        grad_cells[cell.long()] += F.embedding_bag(
            used // bags.cells.shape[3], grad.reshape(-1, channels), count_in.cumsum(0) - count_in,
            mode='sum', per_sample_weights=weights[used],
        )  # fmt: skip
    grad_cells = grad_cells.view(count, height, width, channels).permute(0, 3, 1, 2)
    grad_input += grad_cells.to(grad_input.dtype)


def _place_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for double features, else float32: half precision is too coarse for places."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class _Boxes:
    """Boxes in units of cells, rows before columns.

    Attributes:
        dtype: That of places and weights.
        image: `[K]` int64, index of the image.
        start: `[K, 2]`, place of the top left corner.
        size: `[K, 2]`, height and width.
    """

    def __init__(self, rois: Tensor, dtype: torch.dtype, spatial_scale: float, aligned: bool):
        self.dtype = _place_dtype(dtype)
        rois = rois.to(self.dtype)
        corners = rois[:, [2, 1, 4, 3]] * spatial_scale - (0.5 if aligned else 0.0)
        self.image = rois[:, 0].long()
        self.start = corners[:, :2]
        self.size = corners[:, 2:] - corners[:, :2]
        if not aligned:
            self.size = self.size.clamp(min=1)


class _Axis:
    """Sampling along one axis (rows or columns) for a chunk of K boxes with P bins each.

    Attributes:
        position: `[K, P, G]`, places of the samples; a box may use fewer than G of them.
        used: `[K, 1, G]` bool, which of the G it uses.
        per_sample: `[K, P * G, extent]`, weights of the cells of the window in each sample.
    """

    def __init__(
        self, start: Tensor, size: Tensor, grid: Tensor, first: Tensor, extent: int, most: int,
        bins: int, length: int,
    ):  # fmt: skip
        self.position, self.used = _positions(start, size, grid, most, bins)
        low, high, high_weight, inside = _neighbours(self.position, length)
        inside = inside & self.used
        weights = start.new_zeros(*self.position.shape, extent)
        for cell, weight in ((low, 1 - high_weight), (high, high_weight)):
            place = (cell - first[:, None, None]).clamp(
                0, extent - 1
            )  # unused ones may lie outside
            weights.scatter_add_(3, place[..., None], (weight * inside)[..., None])
        self.per_sample = weights.flatten(1, 2)


def _positions(
    start: Tensor, size: Tensor, grid: Tensor, most: int, bins: int
) -> tuple[Tensor, Tensor]:
    """Places of the samples along an axis, `[K, P, most]`, and which a box uses, `[K, 1, most]`."""
    step = (size / bins)[:, None, None]  # [K, 1, 1]
    bin_index = torch.arange(bins, device=start.device)[:, None]
    sample_index = torch.arange(most, device=start.device)
    grid = grid[:, None, None]
    position = (
        start[:, None, None] + bin_index * step + (sample_index + 0.5) * step / grid.clamp(min=1)
    )
    return position, sample_index < grid


@dataclass
class _Bags:
    """The weighted cells of every bin of some boxes.

    `index` `[K]`; `cells` `[K, PH, PW, E]`, numbers of the cells; `weights`, the same shape.
    """

    index: Tensor
    cells: Tensor
    weights: Tensor


def _bags(
    boxes: _Boxes, shape: torch.Size, pooled: tuple[int, int], sampling_ratio: int
) -> Iterator[_Bags]:
    _, _, height, width = shape
    grid = _grid(boxes, pooled, sampling_ratio)
    # A bin of n cells lies on n + 2 of them at most, along each axis.
    reach = (boxes.size / boxes.size.new_tensor(pooled)).amax(dim=1).clamp(0, max(height, width))
    numel = (reach.ceil().long() + 2).cpu() ** 2 * (pooled[0] * pooled[1])
    for members in _split_by_size(numel, limit=_CHUNK_WEIGHTS):
        index = members.to(boxes.start.device)
        (rows, row_weights), (columns, column_weights) = (
            _bin_weights(
                boxes.start[index, axis], boxes.size[index, axis], grid[index, axis],
                bins=pooled[axis], length=shape[2 + axis],
            )
            for axis in (0, 1)
        )  # fmt: skip
        row_start = (boxes.image[index, None, None] * height + rows) * width  # [K, PH, EH]
        cells = row_start[:, :, None, :, None] + columns[:, None, :, None, :]
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        yield _Bags(index, cells.flatten(3), weights.flatten(3))


def _bin_weights(
    start: Tensor, size: Tensor, grid: Tensor, *, bins: int, length: int
) -> tuple[Tensor, Tensor]:
    """The cells along one axis that a bin lies on, `[K, P, E]`, and their weights in its mean."""
    position, used = _positions(start, size, grid, max(1, int(grid.max())), bins)
    low, high, high_weight, inside = _neighbours(position, length)
    share = (inside & used).to(start.dtype) / grid[:, None, None].clamp(min=1)
    first = low[:, :, :1]
    extent = int((high.masked_fill(~used, 0).amax(dim=2, keepdim=True) - first).max()) + 1
    extent = max(1, extent)
    weights = start.new_zeros(*first.shape[:2], extent)
    for cell, weight in ((low, 1 - high_weight), (high, high_weight)):
        place = (cell - first).clamp(0, extent - 1)  # unused ones may lie outside
        weights.scatter_add_(2, place, weight * share)
    reach = torch.arange(extent, device=start.device)
    return (first + reach).clamp(max=length - 1), weights


def _grid(boxes: _Boxes, pooled: tuple[int, int], sampling_ratio: int) -> Tensor:
    """Samples per bin along each axis, `[K, 2]`."""
    if sampling_ratio > 0:
        return torch.full_like(boxes.size, sampling_ratio, dtype=torch.long)
    return (boxes.size / boxes.size.new_tensor(pooled)).ceil().clamp(min=0).long()


@dataclass
class _Chunk:
    """Boxes that are worked off together: `index` `[K]`, the cells of their windows `[K, h, w]`."""

    index: Tensor
    cells: Tensor
    rows: _Axis
    columns: _Axis


def _chunks(
    boxes: _Boxes, shape: torch.Size, pooled: tuple[int, int], sampling_ratio: int
) -> Iterator[_Chunk]:
    channels, *lengths = shape[1:]
    grid = _grid(boxes, pooled, sampling_ratio)
    largest = boxes.size.new_tensor(lengths) - 1
    ends = torch.stack([boxes.start, boxes.start + boxes.size])  # [2, K, 2]
    first = ends.amin(dim=0).clamp(min=0).minimum(largest).floor().long()
    last = (ends.amax(dim=0).clamp(min=0).floor() + 1).minimum(largest).long()

    extents = (last - first + 1).cpu()
    grids = grid.cpu().clamp(min=1)
    numel = extents.prod(dim=1) + (grids * torch.tensor(pooled)).prod(dim=1)
    for members in _split_by_size(numel, limit=_CHUNK_NUMEL // channels):
        index = members.to(boxes.start.device)
        axes, cells = [], []
        for axis, length in enumerate(lengths):
            extent = int(extents[members, axis].max())
            axes.append(
                _Axis(
                    boxes.start[index, axis],
                    boxes.size[index, axis],
                    grid[index, axis],
                    first[index, axis],
                    extent=extent,
                    most=int(grids[members, axis].max()),
                    bins=pooled[axis],
                    length=length,
                )
            )
            reach = torch.arange(extent, device=index.device)
            cells.append((first[index, axis, None] + reach).clamp(max=length - 1))  # [K, extent]
        row = (boxes.image[index, None] * lengths[0] + cells[0]) * lengths[1]  # [K, h]
        yield _Chunk(index, row[:, :, None] + cells[1][:, None, :], *axes)


def _split_by_size(numel: Tensor, *, limit: int) -> Iterator[Tensor]:
    """Groups of indices of similar `numel`; in a group, count times the largest is <= `limit`.

    A group of one may be larger: the window of one box is at most the feature map of one image.
    """
    order = numel.argsort(descending=True, stable=True)
    begin = 0
    while begin < len(order):
        count = max(1, limit // max(1, int(numel[order[begin]])))
        yield order[begin : begin + count]
        begin += count


def _sample(rows: Tensor, window: Tensor, columns: Tensor) -> Tensor:
    """`rows @ window @ columns^T` for each box and channel.

    Args:
        rows: `[K, R, h]`.
        window: `[K, h, w, C]`.
        columns: `[K, Q, w]`.

    Returns:
        `[K, R, Q, C]`.
    """
    partial = torch.bmm(rows, window.flatten(2))  # [K, R, w*C]
    return columns[:, None] @ partial.unflatten(2, window.shape[2:])


def _neighbours(position: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two cells a place lies between, the weight of the upper one, and whether it counts.

    A place more than one cell outside the map counts for nothing; a nearer one is moved to the rim.
    """
    inside = (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    low = position.floor()
    return low.long(), (low.long() + 1).clamp(max=length - 1), position - low, inside


def _maximum_per_bin(samples: Tensor, chunk: _Chunk) -> tuple[Tensor, Tensor, Tensor]:
    """Largest of `samples` `[K, PH * GY, PW * GX, C]` in each bin, its row and its column.

    Returns:
        Three tensors `[K, C, PH, PW]`.
    """
    rows, columns = chunk.rows, chunk.columns
    samples = samples.unflatten(2, columns.position.shape[1:]).unflatten(1, rows.position.shape[1:])
    samples = samples.permute(0, 5, 1, 3, 2, 4)  # [K, C, PH, PW, GY, GX]
    used = rows.used[..., None] & columns.used[:, :, None]  # [K, 1, GY, GX]
    samples = samples.masked_fill(~used[:, :, None, None], -torch.inf)
    best, flat = samples.flatten(4).max(dim=4)  # [K, C, PH, PW]

    grid_width = samples.shape[-1]
    chosen = []
    for axis, sample, dim in ((rows, flat // grid_width, 2), (columns, flat % grid_width, 3)):
        shape = [len(flat), 1, 1, 1, axis.position.shape[2]]
        shape[dim] = axis.position.shape[1]
        position = axis.position.reshape(shape).expand(*flat.shape, -1)
        chosen.append(position.gather(4, sample[..., None]).squeeze(4))
    empty = torch.isneginf(best)
    best, row, column = (
        value.masked_fill(empty, fill)
        for value, fill in ((best, 0), (chosen[0], -1), (chosen[1], -1))
    )
    return best, row, column


def _scatter_maximum(
    grad_output: Tensor, boxes: _Boxes, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor
) -> None:
    _, channels, height, width = grad_input.shape
    chosen = argmax_y != -1
    grad = torch.where(chosen, grad_output, 0).to(boxes.dtype)
    row_low, row_high, row_weight, row_inside = _neighbours(argmax_y.to(boxes.dtype), height)
    col_low, col_high, col_weight, col_inside = _neighbours(argmax_x.to(boxes.dtype), width)
    grad = grad * (row_inside & col_inside)
    channel = torch.arange(channels, device=grad.device)
    plane = (boxes.image[:, None] * channels + channel)[:, :, None, None] * (height * width)
    total = grad.new_zeros(grad_input.numel())
    for row, weight_y in ((row_low, 1 - row_weight), (row_high, row_weight)):
        for column, weight_x in ((col_low, 1 - col_weight), (col_high, col_weight)):
            place = plane + row * width + column
            total.index_add_(0, place.flatten(), (grad * weight_y * weight_x).flatten())
    grad_input += total.view_as(grad_input).to(grad_input.dtype)
