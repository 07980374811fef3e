"""timm needs the torchvision cure where the installed torchvision has no compiled ops."""

from evamm import compat

compat.install()
