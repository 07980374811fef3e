"""Image-text data: tar shards, tables, retrieval sets and mixtures."""

from .mixture import ImageTextMixture
from .shards import ImageTextShards

__all__ = ['ImageTextMixture', 'ImageTextShards']
