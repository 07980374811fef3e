"""Order and randomness of training data as functions of seed, epoch and position."""

from .damaged_images import DamagedDataError
from .drawn_batches import Draw, DrawnBatchSampler
from .drawn_dataset import DrawnDataset
from .repeat_factor import RepeatFactorSampler
from .shard_sampler import ShardSampler
from .training_data import TrainingData

__all__ = [
    'DamagedDataError',
    'Draw',
    'DrawnBatchSampler',
    'DrawnDataset',
    'RepeatFactorSampler',
    'ShardSampler',
    'TrainingData',
]
