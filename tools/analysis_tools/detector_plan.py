"""Memory and arithmetic of the parts of a detector beside its trunk; the table of all recipes.

The pyramid and the heads are run without memory (torch's fake tensors) in the precision of
training, and what their backward pass would need is added up: pyramid in bfloat16 with norms in
float32, heads in float32, 512 boxes in each of three stages and 128 masks of one image.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from kept_bytes import cuda_autocast, kept_bytes, kept_bytes_of_one
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from evamm.models.detector_flops import count_detector_macs

# Of the rate of bfloat16: convolutions of float32 run in TF32.
HEAD_RATE = 0.5
# Shares of the rate of large matrix products: what detectron2's times of ViTDet mean (0.362 and
# 0.643 s per image of 1024 pixels with ViT-B and ViT-L on an A100), and what trunks alone reach.
DETECTOR_MFU = (0.07, 0.35)


@dataclass(frozen=True)
class Heads:
    """What one image costs in training beside the trunk.

    Attributes:
        pyramid_bytes: Kept for the backward pass by the pyramid.
        head_bytes: Kept by proposals, boxes and masks.
        pyramid_macs: Multiply-accumulates of a forward pass.
        head_macs: The same of proposals, boxes and masks.
    """

    pyramid_bytes: int
    head_bytes: int
    pyramid_macs: int
    head_macs: int

    @property
    def bytes(self) -> int:
        return self.pyramid_bytes + self.head_bytes

    def bf16_macs(self, passes: float) -> float:
        """Products as many as bfloat16 would do in the time; heads compute nothing again."""
        return passes * (self.pyramid_macs + self.head_macs / HEAD_RATE)


def measure_heads(model: nn.Module, img_size: int) -> Heads:
    """What a detector, built on the meta device, costs beside its trunk; it cannot be used after.

    Args:
        model: As :func:`evamm.models.detector_flops.count_detector_macs` takes it.
        img_size: Side of the padded image in pixels.
    """
    sampler = model.train_cfg.rcnn[0].sampler
    positive = int(sampler.num * sampler.pos_fraction)
    macs = count_detector_macs(model, img_size, proposals=sampler.num, detections=positive)
    grid, neck, roi_head = img_size // model.backbone.patch_size, model.neck, model.roi_head
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in (neck, model.rpn_head, roi_head):
            part.to_empty(device='cpu').train()
        features = torch.empty(1, neck.in_channels, grid, grid, requires_grad=True)
        with cuda_autocast():
            pyramid, levels = kept_bytes_of_one(neck, features, owned=neck)
        levels = tuple(level.detach().float().requires_grad_() for level in levels)
        heads, _ = kept_bytes(model.rpn_head, levels, owned=model.rpn_head)
        pooled = partial(torch.empty, requires_grad=True)
        for head in roi_head.bbox_head:
            side = head.roi_feat_size
            heads += kept_bytes(head, pooled(sampler.num, head.in_channels, *side), owned=head)[0]
        if roi_head.with_mask:
            mask_head, side = roi_head.mask_head, roi_head.mask_roi_extractor.roi_layers[0]
            maps = pooled(positive, mask_head.in_channels, *side.output_size)
            heads += kept_bytes(mask_head, maps, owned=mask_head)[0]
    head_macs = sum(macs[part] for part in ('rpn', 'boxes', 'masks'))
    return Heads(pyramid, heads, macs['pyramid'], head_macs)


def table(recipes: list, *, rate: float) -> str:
    """One row per recipe of a detector (`plan_run.Recipe`), and what fits on two kinds of card."""
    lines = [
        '| config | total batch | states | trunk | recomputed | rest | 8 x 24 GiB, recomputed '
        '| 8 x 80 GiB | TFLOP | ms | days on 8 |',
        '|---|---|---|---|---|---|---|---|---|---|---|',
    ]
    for recipe in recipes:
        rest = recipe.heads.bytes
        whole, cheap = (replace(recipe, recomputes=flag) for flag in (False, True))
        sizes = (
            recipe.states(1, False),
            whole.activations(1) - rest,
            cheap.activations(1) - rest,
            rest,
        )
        name = f'`{recipe.name}`' + (' (recomputes)' if recipe.recomputes else '')
        flops = recipe.flops(1) / recipe.images
        seconds = [flops / (rate * share) for share in DETECTOR_MFU]
        cells = [
            name,
            recipe.total_batch,
            *(f'{size / 2**30:.2f}' for size in sizes),
            _fitting(cheap, 24),
            _fitting(recipe, 80),
            f'{flops / 1e12:.1f}',
            ' / '.join(f'{1e3 * second:.0f}' for second in seconds),
            ' / '.join(f'{second * recipe.images / 8 / 86400:.1f}' for second in seconds),
        ]
        lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines)


def _fitting(recipe: object, memory: float) -> str:
    """Images x accumulation and GiB on each of eight cards."""
    plan = recipe.plan(8, memory, 1.0, 1.0)
    if plan is None:
        return 'does not fit'
    kind = ' FSDP' if plan.sharded else ''
    size = (plan.states + plan.activations) / 2**30
    return f'{plan.batch_size} x {plan.accumulation}{kind}, {size:.1f}'
