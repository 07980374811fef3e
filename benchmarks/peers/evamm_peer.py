"""evamm: the trunk in an mmpretrain classifier, as the configs build it."""

from torch import Tensor, nn

import evamm
from evamm import compat


def build(work, weights: dict[str, Tensor]) -> nn.Module:
    compat.install()
    from mmpretrain.registry import MODELS

    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='evamm.EVAViT', arch=f'eva02-{work.size}', img_size=work.img_size),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=work.num_classes,
                in_channels=weights['head.weight'].shape[1],
            ),
        )
    )
    model.load_state_dict(
        {
            f'head.fc.{name[5:]}' if name.startswith('head.') else f'backbone.{name}': value
            for name, value in weights.items()
        }
    )
    return model


def version() -> str:
    return evamm.__version__
