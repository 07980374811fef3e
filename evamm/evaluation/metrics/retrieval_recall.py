"""Recall of image-text retrieval, both ways."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from evamm.engine.errors import ConfigError
from evamm.registry import METRICS


@METRICS.register_module()
class RetrievalRecall(BaseMetric):
    """R@k in % for images that have one or several captions each.

    - image to text: one of the image's captions is among the k texts nearest to the image;
    - text to image: the caption's image is among the k images nearest to the caption.

    Nearest by the dot product of the features. A wrong candidate with the same score as the right
    one (or with no score, NaN) comes first, so that a model that gives one feature to everything
    finds nothing.

    Args:
        topk: The k to report.
        chunk: Rows of the score matrix that are in memory at a time. The whole matrix of COCO
            (5,000 images, 25,010 captions) would take 500 MB.
        device: Where scores are computed; None takes the GPU where there is one.
        collect_device: Where results of several processes are gathered, 'cpu' or 'gpu'.
        prefix: First part of the names of the results.

    Raises:
        ConfigError: A k below 1; predictions without features, images without captions.
    """

    default_prefix = 'retrieval'

    def __init__(
        self,
        topk: Sequence[int] = (1, 5, 10),
        chunk: int = 1024,
        device: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not isinstance(topk, Sequence) or not topk or not all(k > 0 for k in topk):
            raise ConfigError(
                f'RetrievalRecall: topk must be one or more positive numbers, found {topk!r}.'
            )
        self.topk = tuple(topk)
        self.chunk = chunk
        self.device = device or ('cuda' if torch.cuda.is_available() else 'cpu')

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        """Keep `image_feature` [E] and `text_features` [n, E] of every sample."""
        for sample in data_samples:
            missing = {'image_feature', 'text_features'} - set(sample)
            if missing:
                raise ConfigError(
                    f'RetrievalRecall: the predictions hold no {", ".join(sorted(missing))}. Set '
                    "model.test_cfg=dict(type='retrieval')."
                )
            image, texts = sample['image_feature'], sample['text_features']
            self.results.append((image.float().cpu(), texts.float().cpu()))

    def compute_metrics(self, results: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        images = torch.stack([image for image, _ in results]).to(self.device)  # [I, E]
        texts = torch.cat([own for _, own in results]).to(self.device)  # [T, E]
        counts = torch.tensor([len(own) for _, own in results], device=self.device)
        owners = torch.arange(len(images), device=self.device).repeat_interleave(counts)  # [T]
        if int(counts.min()) == 0:
            number = int((counts == 0).sum())
            raise ConfigError(f'RetrievalRecall: {number} images have no caption to be found.')
        ranks = {
            'image_to_text': image_to_text_ranks(images, texts, owners, self.chunk),
            'text_to_image': text_to_image_ranks(images, texts, owners, self.chunk),
        }
        metrics = {
            f'{way}_R@{k}': (rank < k).double().mean().item() * 100
            for way, rank in ranks.items()
            for k in self.topk
        }
        return {**metrics, 'mean_recall': sum(metrics.values()) / len(metrics)}


def image_to_text_ranks(images: Tensor, texts: Tensor, owners: Tensor, chunk: int) -> Tensor:
    """Number of foreign texts that come before the best own text of each image.

    Args:
        images: Features, [I, E].
        texts: Features, [T, E].
        owners: Image of each text, [T].
        chunk: Images per block of scores.

    Returns:
        Ranks from 0, [I].
    """
    ranks = []
    for start in range(0, len(images), chunk):
        rows = torch.arange(start, min(start + chunk, len(images)), device=images.device)
        scores = images[rows] @ texts.T  # [c, T]
        own = owners == rows[:, None]
        best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
        # Not `scores >= best`: that would let NaN pass as worse.
        ranks.append((~(scores < best) & ~own).sum(dim=1))
    return torch.cat(ranks)


def text_to_image_ranks(images: Tensor, texts: Tensor, owners: Tensor, chunk: int) -> Tensor:
    """Number of other images that come before the own image of each text, [T]; see above."""
    ranks = []
    for start in range(0, len(texts), chunk):
        scores = texts[start : start + chunk] @ images.T  # [c, I]
        own = owners[start : start + chunk, None]
        before = ~(scores < scores.gather(1, own))
        ranks.append(before.sum(dim=1) - 1)  # itself
    return torch.cat(ranks)
