"""Image-text retrieval: the features of images and of their captions."""

import torch
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from evamm.engine.errors import ConfigError

from .text_features import encode_tokens


class Retrieval(nn.Module):
    """Encodes images and their captions, for `evamm.RetrievalRecall`.

    Args:
        batch_size: Captions per pass of the text tower.
    """

    def __init__(self, batch_size: int = 256) -> None:
        super().__init__()
        self.batch_size = batch_size

    def forward(
        self, model: nn.Module, inputs: Tensor, data_samples: list[DataSample] | None = None
    ) -> list[DataSample]:
        """Features of normalised images [B, 3, H, W] and of the captions of each.

        Args:
            model: An `EVACLIP`.
            inputs: The images.
            data_samples: One per image, with `text_tokens` [n, L] or [L].

        Returns:
            The data samples with `image_feature` [E] and `text_features` [n, E], normalised.

        Raises:
            ConfigError: The data samples hold no tokens.
        """
        if not data_samples or any('text_tokens' not in sample for sample in data_samples):
            raise ConfigError(
                "model.test_cfg.type='retrieval' needs captions: the data samples hold no "
                '`text_tokens`. End the pipeline with evamm.TokenizeText and evamm.PackPairInputs.'
            )
        tokens = [torch.atleast_2d(sample.text_tokens).cpu() for sample in data_samples]
        images = model.encode_image(inputs, normalize=True).float()  # [B, E]
        texts = encode_tokens(model, torch.cat(tokens), self.batch_size)
        texts = texts.split([len(each) for each in tokens])
        for sample, image, own in zip(data_samples, images, texts, strict=True):
            sample.set_field(image, 'image_feature')
            sample.set_field(own, 'text_features')
        return data_samples
