"""Image-text data: tar shards, tables, retrieval sets and mixtures."""

from .mixture import ImageTextMixture
from .retrieval import CaptionRetrieval
from .shards import ImageTextShards
from .table import ImageTextTable

__all__ = ['CaptionRetrieval', 'ImageTextMixture', 'ImageTextShards', 'ImageTextTable']
