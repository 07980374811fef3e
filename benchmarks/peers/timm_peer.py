"""timm: create_model by name, with the weights in timm's names."""

from importlib.metadata import version as installed

from torch import Tensor, nn

from evamm import compat
from evamm.checkpoints import from_evamm


def build(work, weights: dict[str, Tensor]) -> nn.Module:
    compat.install()  # torchvision without compiled ops would not import
    import timm

    model = timm.create_model(
        f'eva02_{work.size}_patch14_224', num_classes=work.num_classes, img_size=work.img_size
    )
    model.load_state_dict(from_evamm(weights, 'timm'))
    return model


def version() -> str:
    return installed('timm')
