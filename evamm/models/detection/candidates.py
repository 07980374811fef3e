"""Boxes that the stages of a cascade are trained on."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .boxes import nonempty
from .matching import BalancedSampler, IoUMatcher


class GroundTruth(NamedTuple):
    """Objects of all images together and one without area of no image, so that it is never empty.

    Attributes:
        boxes: [M + 1, 4].
        labels: [M + 1].
        images: [M + 1], -1 for the last.
    """

    boxes: Tensor
    labels: Tensor
    images: Tensor


def gather_ground_truth(instances: Sequence[InstanceData]) -> GroundTruth:
    """Puts ``bboxes`` and ``labels`` of all images together."""
    boxes, labels, images = [], [], []
    for number, gt in enumerate(instances):
        boxes.append(gt.bboxes)
        labels.append(gt.labels)
        images.append(torch.full_like(gt.labels, number))
    boxes.append(boxes[0].new_zeros(1, 4))
    labels.append(labels[0].new_zeros(1))
    images.append(images[0].new_full((1,), -1))
    return GroundTruth(torch.cat(boxes), torch.cat(labels), torch.cat(images))


class Candidates(NamedTuple):
    """Boxes of all images, image by image.

    Attributes:
        rois: Number of the image and corners, [R, 5].
        index: The object that each overlaps most, [R].
        labels: Its class, or K for background, [R].
    """

    rois: Tensor
    index: Tensor
    labels: Tensor


@torch.no_grad()
def sample_candidates(
    proposals: Sequence[Tensor],
    truth: GroundTruth,
    matcher: IoUMatcher,
    sampler: BalancedSampler,
    background: int,
) -> Candidates:
    """Matches proposals and draws from them.

    Args:
        proposals: Boxes of every image, [P, 4].
        truth: Objects.
        matcher: Gives proposals an object.
        sampler: Draws.
        background: Label of the background.
    """
    boxes = pad_sequence(list(proposals), batch_first=True)  # [B, P, 4]
    batch, places, _ = boxes.shape
    counts = torch.tensor([len(some) for some in proposals], device=boxes.device)
    exists = torch.arange(places, device=boxes.device) < counts[:, None]  # [B, P]
    images = torch.arange(batch, device=boxes.device).repeat_interleave(places)
    matches = matcher.match(boxes.flatten(0, 1), truth.boxes, images, truth.images)
    positive, negative = (mask.view(batch, places) & exists for mask in matches[1:])
    sample = sampler.sample(positive, negative)
    image, place = sample.used.nonzero(as_tuple=True)
    box = sample.index[image, place]  # [R], within the image
    index = matches.index.view(batch, places)[image, box]
    labels = torch.where(sample.positive[image, place], truth.labels[index], background)
    rois = torch.cat((image[:, None].to(boxes), boxes[image, box]), dim=1)
    return Candidates(rois, index, labels)


@torch.no_grad()
def match_candidates(
    rois: Tensor, truth: GroundTruth, matcher: IoUMatcher, background: int
) -> Candidates:
    """Matches all boxes [R, 5] that are not empty."""
    rois = rois[nonempty(rois[:, 1:])]
    index, positive, _ = matcher.match(rois[:, 1:], truth.boxes, rois[:, 0], truth.images)
    return Candidates(rois, index, torch.where(positive, truth.labels[index], background))
