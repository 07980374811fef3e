"""Sigmoid cross-entropy for many classes of which few are annotated exhaustively."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evamm.registry import MODELS


def _image_counts(frequencies: Sequence[int] | str | Path) -> Tensor:
    """Images of every class, in the order of class ids."""
    if isinstance(frequencies, (str, Path)):
        frequencies = json.loads(Path(frequencies).read_text())
        if isinstance(frequencies, dict):
            frequencies = frequencies['categories']
    if frequencies and isinstance(frequencies[0], dict):
        frequencies = sorted(frequencies, key=lambda category: category['id'])
        frequencies = [category['image_count'] for category in frequencies]
    return torch.tensor(frequencies, dtype=torch.float32)


@MODELS.register_module()
class FederatedLoss(nn.Module):
    """Binary cross-entropy of every class, of a sample of the classes if wanted (LVIS).

    The classes that occur among the labels count, background being one of them, and as many others,
    drawn with frequent ones preferred, as make up ``num_sampled_classes``. The sum over boxes and
    classes is divided by the number of all boxes. The background column of the logits is not
    trained. Paper: 2103.07461, section 3 of its appendix; official:
    ``detectron2/modeling/roi_heads/fast_rcnn.py``.

    Takes the place of ``loss_cls`` of an mmdet box head with ``num_classes + 1`` outputs.

    Args:
        num_sampled_classes: Classes that count in a step; None for all (plain sigmoid loss).
        frequency_power: Exponent of the frequencies as weights of the draw.
        frequencies: Images of every class: a list, or a JSON file with a list, with LVIS
            categories (``id``, ``image_count``) or with a data set that has them.
        loss_weight: Factor of the loss.

    Raises:
        ValueError: If classes are to be sampled and there are no frequencies.
    """

    use_sigmoid = True

    def __init__(
        self,
        num_sampled_classes: int | None = 50,
        frequency_power: float = 0.5,
        frequencies: Sequence[int] | str | Path | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if num_sampled_classes is not None and frequencies is None:
            raise ValueError(
                'FederatedLoss needs frequencies (images of every class) to sample classes; give '
                'them, or num_sampled_classes=None to count all classes.'
            )
        self.num_sampled_classes = num_sampled_classes
        self.loss_weight = loss_weight
        weights = None
        if num_sampled_classes is not None:
            weights = _image_counts(frequencies) ** frequency_power
        self.register_buffer('class_weights', weights, persistent=False)

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """Computes the loss.

        Args:
            cls_score: Logits, the background last, [N, K + 1].
            label: Classes, K for background, [N].
            weight: Factor of every box, [N].
            avg_factor: Divisor in place of N.
            reduction_override: Not used.

        Returns:
            Scalar.

        Raises:
            ValueError: If the frequencies are not those of K classes.
        """
        classes = cls_score.shape[1] - 1
        logits = cls_score[:, :-1].float()
        target = F.one_hot(label, classes + 1)[:, :-1].to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, target, reduction='none')  # [N, K]
        if weight is not None:
            loss = loss * weight[:, None]
        if self.num_sampled_classes is not None:
            loss = loss * self.sample_classes(label, classes)[:classes]
        return self.loss_weight * loss.sum() / (avg_factor or max(len(label), 1))

    def check_classes(self, classes: int, key: str = 'FederatedLoss') -> None:
        """Makes sure that there is a frequency for each of K classes.

        Args:
            classes: K.
            key: Where the loss stands in the config.

        Raises:
            ValueError: There are more or fewer.
        """
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise ValueError(
                f'{key}.frequencies is for {len(self.class_weights)} classes, but num_classes of '
                f'the head is {classes}: give the number of training images of each of its '
                f'classes, or {key}.num_sampled_classes=None to train on all of them.'
            )

    @torch.no_grad()
    def sample_classes(self, label: Tensor, classes: int) -> Tensor:
        """Which classes count, background last, [K + 1].

        The draw without replacement is that of ``torch.multinomial``, without reading how many
        classes occur from the device.
        """
        self.check_classes(classes)
        present = torch.zeros(classes + 1, dtype=torch.bool, device=label.device)
        present[label] = True
        weights = F.pad(self.class_weights, (0, 1)).masked_fill(present, 0)
        keys = weights / torch.empty_like(weights).exponential_()
        key, drawn = keys.topk(min(self.num_sampled_classes, classes + 1))
        room = self.num_sampled_classes - present.sum()
        place = torch.arange(len(drawn), device=label.device)
        return present.scatter(0, drawn, present[drawn] | ((place < room) & (key > 0)))
