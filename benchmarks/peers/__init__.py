"""Builders of the same classifier in every code base.

A builder takes the weights in evamm's names and returns a module that maps images
[B, 3, H, W] to logits [B, classes], in the way a user of that library gets one.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from . import evamm_peer, mmpretrain_peer, timm_peer


@dataclass(frozen=True)
class Work:
    """One EVA-02 classifier to build: `size` tiny/small/base/large at `img_size` pixels."""

    size: str
    img_size: int
    num_classes: int = 1000

    @classmethod
    def parse(cls, text: str) -> 'Work':
        """Reads ``tiny@224``."""
        size, _, pixels = text.partition('@')
        if size not in ('tiny', 'small', 'base', 'large') or not pixels.isdigit():
            raise ValueError(
                f'model {text!r} is not understood; write tiny, small, base or large, then @ and '
                'the image size, as in tiny@224.'
            )
        return cls(size, int(pixels))

    def __str__(self) -> str:
        return f'{self.size}@{self.img_size}'


Builder = Callable[[Work, dict[str, Tensor]], nn.Module]

PEERS: dict[str, Builder] = {
    'evamm': evamm_peer.build,
    'timm': timm_peer.build,
    'mmpretrain': mmpretrain_peer.build,
}
VERSIONS: dict[str, Callable[[], str]] = {
    'evamm': evamm_peer.version,
    'timm': timm_peer.version,
    'mmpretrain': mmpretrain_peer.version,
}
