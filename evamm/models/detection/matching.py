"""Which ground-truth box a candidate belongs to, and which candidates are trained on."""

from typing import NamedTuple

import torch
from torch import Tensor

from evamm.registry import TASK_UTILS

from .boxes import box_iou

# Pairs of candidates and objects compared at a time; bounds the memory to some 100 MB.
_PAIRS = 2**23


class Matches(NamedTuple):
    """What a candidate box is.

    Attributes:
        index: The ground-truth box that overlaps it most, [N]; 0 where there is none.
        positive: [N], it counts as that object.
        negative: [N], it counts as background; neither means: not trained on.
    """

    index: Tensor
    positive: Tensor
    negative: Tensor


@TASK_UTILS.register_module()
class IoUMatcher:
    """Gives every candidate the ground-truth box with the largest IoU.

    Unlike mmdet's ``MaxIoUAssigner`` a candidate that is positive only because no other overlaps
    some object more keeps the object that *it* overlaps most, and needs no minimum IoU; there are
    no regions to ignore. Official: ``detectron2/modeling/matcher.py``.

    Args:
        pos_iou_thr: From this IoU on positive.
        neg_iou_thr: Below this IoU negative.
        match_low_quality: The best candidates of every object are positive, too (RPN).
    """

    def __init__(
        self, pos_iou_thr: float, neg_iou_thr: float, match_low_quality: bool = False
    ) -> None:
        if not 0 < neg_iou_thr <= pos_iou_thr <= 1:
            raise ValueError(
                f'IoUMatcher needs 0 < neg_iou_thr <= pos_iou_thr <= 1, got {neg_iou_thr} and '
                f'{pos_iou_thr}.'
            )
        self.pos_iou_thr = pos_iou_thr
        self.neg_iou_thr = neg_iou_thr
        self.match_low_quality = match_low_quality

    @torch.no_grad()
    def match(
        self,
        boxes: Tensor,
        gt_boxes: Tensor,
        images: Tensor | None = None,
        gt_images: Tensor | None = None,
    ) -> Matches:
        """Matches candidates with ground truth.

        Args:
            boxes: Candidates, [N, 4].
            gt_boxes: Ground truth, [M, 4].
            images: Number of the image of every candidate, [N]; None if all are of one image.
            gt_images: The same for the ground truth, [M].
        """
        # Some objects at a time: an IoU of every anchor with every object may be gigabytes.
        step = max(1, _PAIRS // max(1, len(boxes)))
        best = boxes.new_full((len(boxes),), -1.0)
        index = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
        low_quality = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        for start in range(0, len(gt_boxes), step):
            some = slice(start, start + step)
            iou = box_iou(gt_boxes[some], boxes)  # [m, N]
            if images is not None:
                iou = torch.where(gt_images[some, None] == images, iou, 0)
            largest, row = iou.max(dim=0)
            index = torch.where(largest > best, row + start, index)
            best = torch.maximum(best, largest)
            if self.match_low_quality:
                # An object that no candidate overlaps has no best one.
                top = iou.amax(dim=1, keepdim=True)
                low_quality |= ((iou == top) & (top > 0)).any(dim=0)
        positive = (best >= self.pos_iou_thr) | low_quality
        return Matches(index, positive, (best < self.neg_iou_thr) & ~low_quality)


class Sample(NamedTuple):
    """Candidates that are trained on, some places of which may be unused.

    Attributes:
        index: Which candidates, [B, S].
        positive: [B, S], a positive one.
        used: [B, S], a candidate at all.
    """

    index: Tensor
    positive: Tensor
    used: Tensor


@TASK_UTILS.register_module()
class BalancedSampler:
    """Draws positive candidates up to a share, then negative ones up to a number.

    The result has the same shape whatever was drawn, so that nothing is read from the device.
    Official: ``detectron2/modeling/sampling.py``.

    Args:
        num: Candidates per image.
        pos_fraction: Largest share of positive ones.
        add_gt_as_proposals: The ground truth takes part as candidates (RoI head).
        context: Not used; mmdet passes the head.
    """

    def __init__(
        self,
        num: int,
        pos_fraction: float,
        add_gt_as_proposals: bool = False,
        context: object | None = None,
    ) -> None:
        if num < 1 or not 0 <= pos_fraction <= 1:
            raise ValueError(
                f'BalancedSampler needs num >= 1 and 0 <= pos_fraction <= 1, got num={num} and '
                f'pos_fraction={pos_fraction}.'
            )
        self.num = num
        self.num_pos = int(num * pos_fraction)
        self.add_gt_as_proposals = add_gt_as_proposals

    @torch.no_grad()
    def sample(self, positive: Tensor, negative: Tensor) -> Sample:
        """Draws from the candidates of every image, positive ones first.

        Args:
            positive: [B, N].
            negative: [B, N].
        """
        size = positive.shape[1]
        pos_keys = torch.rand(positive.shape, device=positive.device).masked_fill(~positive, -1)
        neg_keys = torch.rand(positive.shape, device=positive.device).masked_fill(~negative, -1)
        pos_key, pos_index = pos_keys.topk(min(self.num_pos, size))
        neg_key, neg_index = neg_keys.topk(min(self.num, size))
        pos_used = pos_key >= 0
        room = self.num - pos_used.sum(dim=1, keepdim=True)  # [B, 1]
        place = torch.arange(neg_key.shape[1], device=positive.device)
        used = torch.cat((pos_used, (neg_key >= 0) & (place < room)), dim=1)
        positive = torch.cat((pos_used, torch.zeros_like(neg_key, dtype=torch.bool)), dim=1)
        return Sample(torch.cat((pos_index, neg_index), dim=1), positive, used)
