"""Mask head and its targets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.ops import roi_align
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.structures.mask import BitmapMasks, PolygonMasks, encode_mask_results
from mmdet.structures.mask.structures import polygon_to_bitmap
from torch import Tensor, nn

from evamm.registry import MODELS

# Pixels of masks that are pasted or cut at a time; bounds the memory to a few times 4 bytes each.
_PASTE_PIXELS = 2**26


@MODELS.register_module()
class ViTDetMaskHead(FCNMaskHead):
    """Four convolutions with LayerNorm, one that doubles the side, one map for every class.

    The layers and names of mmdet's ``FCNMaskHead``, with initialisation, targets and loss of the
    official detector (``detectron2/modeling/roi_heads/mask_head.py``).

    Args:
        num_classes: Classes K, without background.
        in_channels: Channels of the pooled maps.
        conv_out_channels: Channels within the head.
        num_convs: 3x3 convolutions.
        norm_cfg: Norm of the convolutions.
        loss_weight: Factor of the loss.
        predictor_std: Standard deviation of the initial weights of the last layer. With few
            channels and a high rate the official 0.001 is too little: most pixels are background,
            so that the first steps make all these weights negative, and after a ReLU the inside
            of a mask then rests on the slow bias alone. Masks stay too fat for a long time.
    """

    def __init__(
        self,
        num_classes: int = 80,
        in_channels: int = 256,
        conv_out_channels: int = 256,
        num_convs: int = 4,
        *,
        norm_cfg: dict | None = None,
        loss_weight: float = 1.0,
        predictor_std: float = 0.001,
    ) -> None:
        super().__init__(
            num_convs=num_convs,
            in_channels=in_channels,
            conv_out_channels=conv_out_channels,
            num_classes=num_classes,
            norm_cfg={'type': 'evamm.LayerNorm2d', 'eps': 1e-6, **(norm_cfg or {})},
            loss_mask=dict(type='mmdet.CrossEntropyLoss', use_mask=True),
        )
        self.loss_weight = loss_weight
        del self.loss_mask  # mmdet's; the loss is in `losses`
        self.predictor_std = predictor_std

    def init_weights(self) -> None:
        """Draws the predictor as the official head does."""
        super().init_weights()
        nn.init.normal_(self.conv_logits.weight, std=self.predictor_std)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mask logits of pooled maps [N, C, s, s].

        Args:
            x: Pooled maps.
            labels: Class of every box, [N]; only the maps of these are computed, which is all that
                the loss and the result need (with 1203 classes all maps of 512 boxes take 2 GB).

        Returns:
            [N, S, S] with S = 2s, or [N, K, S, S] without labels.
        """
        for conv in self.convs:
            x = conv(x)
        x = self.relu(self.upsample(x))
        if labels is None:
            return self.conv_logits(x)
        weight = self.conv_logits.weight[labels].flatten(1)  # [N, C]
        logits = torch.bmm(weight[:, None].to(x.dtype), x.flatten(2))  # [N, 1, S * S]
        return logits.view(len(x), *x.shape[2:]) + self.conv_logits.bias[labels, None, None]

    def losses(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Mean over boxes and pixels of the binary cross-entropy of the box's class.

        Args:
            logits: [N, S, S].
            targets: Masks, [N, S, S].
        """
        if not len(logits):
            return dict(loss_mask=logits.sum().float() * 0)
        loss = F.binary_cross_entropy_with_logits(logits.float(), targets.float())
        return dict(loss_mask=self.loss_weight * loss)


def mask_targets(
    masks: BitmapMasks | PolygonMasks, boxes: Tensor, index: Tensor, size: int
) -> Tensor:
    """Cuts masks out within boxes and brings them to a common size.

    Polygons are drawn anew in the small window, as the official detector does; bitmaps are
    averaged (RoIAlign) and count from one half.

    Args:
        masks: Masks of one image.
        boxes: Where to cut, [N, 4].
        index: Which mask, [N].
        size: Side of the result.

    Returns:
        [N, size, size], bool.
    """
    if isinstance(masks, BitmapMasks):
        if not len(index):
            return boxes.new_zeros(0, size, size, dtype=torch.bool)
        # Few masks at a time: as numbers they take four times as much, 4 MB each at 1024 pixels.
        targets = boxes.new_zeros(len(index), size, size, dtype=torch.bool)
        used, place = index.unique(return_inverse=True)
        step = max(1, _PASTE_PIXELS // (masks.height * masks.width))
        for start in range(0, len(used), step):
            some = used[start : start + step].cpu().numpy()
            bitmaps = torch.from_numpy(masks.masks[some]).to(boxes.device).to(boxes.dtype)
            (members,) = ((place >= start) & (place < start + step)).nonzero(as_tuple=True)
            rois = torch.cat(((place[members] - start)[:, None].to(boxes), boxes[members]), dim=1)
            cut = roi_align(bitmaps[:, None], rois, size, 1.0, 0, 'avg', True)
            targets[members] = cut[:, 0] >= 0.5
        return targets
    drawn = np.zeros((len(index), size, size), dtype=bool)
    places = zip(drawn, boxes.double().cpu().numpy(), index.tolist())
    for place, box, instance in places:
        scale = size / np.maximum(box[2:] - box[:2], 0.1)
        polygons = [
            ((np.asarray(polygon).reshape(-1, 2) - box[:2]) * scale).ravel()
            for polygon in masks.masks[instance]
        ]
        if polygons:
            place[:] = polygon_to_bitmap(polygons, size, size)
    return torch.from_numpy(drawn).to(boxes.device)


def paste_masks(
    probabilities: Tensor, boxes: Tensor, shape: Sequence[int], threshold: float
) -> Tensor:
    """Puts small masks where their boxes are.

    Args:
        probabilities: [N, S, S].
        boxes: [N, 4].
        shape: Height and width of the image.
        threshold: From here on a pixel belongs to the mask.

    Returns:
        [N, height, width], bool.
    """
    pasted = probabilities.new_zeros((len(boxes), *shape), dtype=torch.bool)
    for some in _portions(probabilities, shape):
        _paste(pasted[some], probabilities[some], boxes[some], threshold)
    return pasted


def code_masks(
    probabilities: Tensor, boxes: Tensor, shape: Sequence[int], threshold: float
) -> list[dict[str, Any]]:
    """What :func:`paste_masks` gives, as COCO's run-length codes.

    The masks are not held all at once: a hundred of an image of 12 megapixels take 1.2 GB.

    Args:
        probabilities: [N, S, S].
        boxes: [N, 4].
        shape: Height and width of the image.
        threshold: From here on a pixel belongs to the mask.

    Returns:
        N dicts with ``size`` [height, width] and ``counts`` (a string, as JSON has it).
    """
    codes = []
    for some in _portions(probabilities, shape):
        pasted = probabilities.new_zeros((len(boxes[some]), *shape), dtype=torch.bool)
        _paste(pasted, probabilities[some], boxes[some], threshold)
        codes += encode_mask_results(pasted.cpu().numpy())
    return [{**code, 'counts': code['counts'].decode()} for code in codes]


def _portions(probabilities: Tensor, shape: Sequence[int]) -> list[slice]:
    """Masks that are pasted together: on a CPU one by one, each within its box only."""
    alone = probabilities.device.type == 'cpu'
    step = 1 if alone else max(1, _PASTE_PIXELS // (shape[0] * shape[1]))
    return [slice(start, start + step) for start in range(0, len(probabilities), step)]


def _paste(empty: Tensor, probabilities: Tensor, boxes: Tensor, threshold: float) -> None:
    """Writes masks [N, S, S] into ``empty`` [N, height, width]."""
    cut, place = _do_paste_mask(
        probabilities[:, None], boxes, *empty.shape[1:], skip_empty=empty.device.type == 'cpu'
    )
    empty[(slice(None), *place)] = cut >= threshold
