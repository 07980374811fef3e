"""Order and randomness of training data as functions of seed, epoch and position."""

from .drawn_batches import Draw, DrawnBatchSampler
from .drawn_dataset import DrawnDataset
from .training_data import TrainingData

__all__ = ['Draw', 'DrawnBatchSampler', 'DrawnDataset', 'TrainingData']
