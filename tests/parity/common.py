"""What the parity tests share."""

import torch
from torch import Tensor, nn

from evamm.models.backbones import EVAViT

# fp32 noise between two correct implementations stays near 1e-6 here, while the smallest mistake we
# know of (eps 1e-5 in the norms) moves the result by more than 1e-5.
TOLERANCE = 5e-6


def relative_error(found: Tensor, expected: Tensor) -> float:
    """2-norm of the difference over the 2-norm of what is expected."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    found, expected = found.detach().double(), expected.double()
    return float((found - expected).norm() / expected.norm())


class Classifier(nn.Module):
    """Trunk and linear head under the names that an mmpretrain ImageClassifier gives them."""

    def __init__(self, backbone: EVAViT, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Module()
        self.head.fc = nn.Linear(backbone.embed_dims, num_classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Logits, pooled features, and the tokens after the first and the last block."""
        (feat,) = self.backbone(image)
        return dict(self._tokens(image), feat=feat, logits=self.head.fc(feat))

    @torch.no_grad()
    def _tokens(self, image: Tensor) -> dict[str, Tensor]:
        taps = {}
        hooks = [
            self.backbone.blocks[index].register_forward_hook(
                lambda module, args, out, name=name: taps.__setitem__(name, out)
            )
            for name, index in (('block0', 0), ('tokens', -1))
        ]
        # Where only the class token is asked for, the last block computes no other.
        out_type, self.backbone.out_type = self.backbone.out_type, 'raw'
        self.backbone(image)
        self.backbone.out_type = out_type
        for hook in hooks:
            hook.remove()
        return taps


def pooling_norm(trunk: EVAViT) -> nn.Module:
    """The norm in front of the head: on the mean of the patches or on the class token."""
    return trunk.fc_norm if isinstance(trunk.norm, nn.Identity) else trunk.norm


def evamm_names(canonical: dict[str, Tensor]) -> dict[str, Tensor]:
    """Canonical keys under the names of `Classifier`."""
    return {
        ('head.fc.' + name[5:] if name.startswith('head.') else 'backbone.' + name): value
        for name, value in canonical.items()
    }


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Fills a model with the weights of the formula, from torch's generator (quick)."""
    from .formula import scaled

    generator = torch.Generator().manual_seed(seed)
    for name, param in model.named_parameters():
        param.copy_(scaled(name, torch.randn(param.shape, generator=generator)))
