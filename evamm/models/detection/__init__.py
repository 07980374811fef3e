"""What needs mmdet: the detector heads of ViTDet as the official EVA code has them."""

from .bbox_head import ViTDetBBoxHead
from .boxes import BoxDeltaCoder
from .data_preprocessor import SquarePadDetDataPreprocessor
from .mask_head import ViTDetMaskHead
from .matching import BalancedSampler, IoUMatcher
from .roi_extractor import ViTDetRoIExtractor
from .roi_head import ViTDetCascadeRoIHead
from .rpn_head import ViTDetRPNHead

__all__ = [
    'BalancedSampler',
    'BoxDeltaCoder',
    'IoUMatcher',
    'SquarePadDetDataPreprocessor',
    'ViTDetBBoxHead',
    'ViTDetCascadeRoIHead',
    'ViTDetMaskHead',
    'ViTDetRPNHead',
    'ViTDetRoIExtractor',
]
