"""timm and open_clip need the torchvision cure where torchvision has no compiled ops."""

from evamm import compat

compat.install()
