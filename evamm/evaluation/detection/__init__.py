"""Metrics of object detection and instance segmentation."""

from .coco_metric import CocoMetric
from .lvis_metric import LVISMetric

__all__ = ['CocoMetric', 'LVISMetric']
