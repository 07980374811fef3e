"""Multi-scale deformable attention: `ms_deform_attn_forward` / `_backward` of `mmcv._ext`.

Zhu et al., "Deformable DETR" (arXiv 2010.04159), equation 3. mmcv calls these on CUDA; on the CPU
it has a formula of its own.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['ms_deform_attn_backward', 'ms_deform_attn_forward']


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Sums bilinear samples of all levels, weighted by the attention.

    Args:
        value: `[B, S, M, D]`, the levels one after another.
        value_spatial_shapes: `[L, 2]`, height and width of each level.
        value_level_start_index: `[L]`, first of the S places of each level.
        sampling_locations: `[B, Q, M, L, P, 2]`, x and y in 0..1 of the level; outside counts 0.
        attention_weights: `[B, Q, M, L, P]`.
        im2col_step: images per kernel launch of the compiled operator; has no effect here.

    Returns:
        `[B, Q, M * D]`.
    """
    batch, _, heads, dims = value.shape
    queries = sampling_locations.shape[1]
    grids = (
        (2 * sampling_locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    )  # [L, B*M, Q, P, 2]
    weights = attention_weights.permute(3, 0, 2, 1, 4).flatten(1, 2)  # [L, B*M, Q, P]
    output = value.new_zeros(batch * heads, dims, queries)
    starts = value_level_start_index.tolist()
    for level, (height, width) in enumerate(value_spatial_shapes.tolist()):
        plane = value[:, starts[level] : starts[level] + height * width]  # [B, h*w, M, D]
        plane = plane.permute(0, 2, 3, 1).reshape(batch * heads, dims, height, width)
        samples = F.grid_sample(plane, grids[level], align_corners=False)  # [B*M, D, Q, P]
        output = output + (samples * weights[level, :, None]).sum(dim=-1)
    output = output.view(batch, heads * dims, queries)
    return output.transpose(1, 2).contiguous()


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Writes the gradients with respect to `value`, `sampling_locations`, `attention_weights`."""
    inputs = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            inputs[0],
            value_spatial_shapes,
            value_level_start_index,
            inputs[1],
            inputs[2],
            im2col_step,
        )
    grads = torch.autograd.grad(output, inputs, grad_output)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        target.copy_(grad)
