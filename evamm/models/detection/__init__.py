"""What needs mmdet: the detector heads of ViTDet as the official EVA code has them.

Layers, parameter names, anchors, RoIAlign and the detector itself are mmdet's. What differs,
because the official detectors (forks of detectron2) differ:

- Matching (:mod:`.matching`): a candidate keeps the object it overlaps most, also if it counts only
  as the best one of another; no minimum IoU; anchors in the padding take part; no ignored regions.
- Sampling (:mod:`.matching`, :mod:`.candidates`): ground truth is matched like any proposal; later
  stages train on all boxes that are not empty.
- Boxes (:mod:`.boxes`): growth is limited, shrinking is not; weights multiply exactly.
- Losses (:mod:`.rpn_head`, :mod:`.bbox_head`, :mod:`.roi_head`): divided by what was to be sampled
  (RPN), by all boxes (heads); stages have equal weight and send back a third of the gradient.
- Proposals (:mod:`.rpn_head`): ranked by logit; empty ones go before NMS.
- Levels (:mod:`.roi_extractor`) and mask targets (:mod:`.mask_head`): other small constants.
- Results (:mod:`.detections`, :mod:`.soft_nms`): mean of probabilities, not of logits; Soft-NMS in
  place of NMS and of the limit per image; maskness; boxes are clipped to the original image.
- Start (:mod:`.bbox_head`, :mod:`.mask_head`): fully connected layers and mask predictor.
- Precision (:mod:`.precision`): all heads in float32, whatever the trunk runs in.
"""

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
