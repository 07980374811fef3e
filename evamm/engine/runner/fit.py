"""Do the data sets and the model fit together? Asked before the first batch."""

import logging
from itertools import zip_longest
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from evamm.datasets.checks import DataError, check_dataset, class_names, single_datasets

from ..errors import ConfigError
from .parts import check_losses, check_parts, class_count
from .training_state import bare_model


def check_fit(runner: Runner, parts: tuple[str, ...]) -> None:
    """Compare what a runner is made of: widths, classes, labels, files.

    Builds the loops, which the runner would do next. Looks at the data in the main process only.

    Args:
        runner: A runner that has not begun.
        parts: Loops to look at, of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        DataError: A data set does not fit the model, or its files are missing.
        ConfigError: Two parts of the model do not fit.
    """
    model = bare_model(runner)
    if not isinstance(model, nn.Module):
        return  # mmengine's FlexibleRunner builds the model when it begins
    model = getattr(model, 'module', model)  # test-time augmentation is a wrapper too
    check_parts(model)
    if 'train' in parts:
        check_losses(model)
    head, num_classes = class_count(model)
    loops = {name: getattr(runner, f'{name}_loop') for name in parts}
    loaders = {name: loop.dataloader for name, loop in loops.items() if loop is not None}
    datasets = {
        name: (f'{name}_dataloader.dataset', loader.dataset)
        for name, loader in loaders.items()
        if hasattr(loader, 'dataset')
    }
    if not is_main_process():
        return
    for name, (key, dataset) in datasets.items():
        check_dataset(dataset, key, num_classes, training=name == 'train', head=head)
        _check_sizes(model, key, dataset, training=name == 'train')
    for name in ('val', 'test'):
        if name in datasets:
            _check_named_classes(model, *datasets[name])
    if 'train' in datasets and 'val' in datasets:
        _check_same_classes(*datasets['train'], *datasets['val'])
    if hasattr(loaders.get('train'), '__len__'):
        _check_length(loaders['train'])


def _check_named_classes(model: nn.Module, key: str, dataset: Any) -> None:
    """An image-text model may bring names of the classes; the data set has as many, or none."""
    check = getattr(getattr(model, 'predictor', None), 'check_classes', None)
    for _, part in single_datasets(dataset, key) if check is not None else ():
        names = class_names(part)
        if names is not None:
            check(names)


def _check_sizes(model: nn.Module, key: str, dataset: Any, *, training: bool) -> None:
    """Images larger than the square of the padding make squares that differ from batch to batch.

    Smaller ones are filled up. Where a crop lets none be as large, all of a training are.
    """
    square = getattr(getattr(model, 'data_preprocessor', None), 'pad_size', None)
    for part_key, part in single_datasets(dataset, key) if isinstance(square, int) else ():
        steps = getattr(getattr(part, 'pipeline', None), 'transforms', ())
        sizes = [size for size in map(_largest_side, steps) if size is not None]
        if sizes and sizes[-1] > square:
            raise ConfigError(
                f'{part_key}.pipeline makes images of {sizes[-1]} pixels, but '
                f'model.data_preprocessor.pad_size is {square}: set both to the same number.'
            )
        if training and sizes and sizes[-1] < square:
            print_log(
                f'{part_key}.pipeline makes images of {sizes[-1]} pixels at most, and '
                f'model.data_preprocessor.pad_size is {square}: all of them are filled up with '
                'zeros, which costs time and memory; set both to the same number, or take a config '
                'that is made for training.',
                logger='current',
                level=logging.WARNING,
            )


def _largest_side(step: Any) -> int | None:
    """Side in pixels that a crop or a resizing brings images to at most; None of other steps."""
    for key in ('crop_size', 'size', 'scale', 'scales'):
        size = getattr(step, key, None)
        if size is None:
            continue
        sizes = size if isinstance(size, list) else [size]  # one of several is drawn
        sides = [s for part in sizes for s in (part if isinstance(part, tuple) else (part,))]
        if sides and all(isinstance(side, int) for side in sides):
            # mmcv's RandomResize makes its scale smaller or larger.
            return int(max(sides) * max(getattr(step, 'ratio_range', None) or (1,)))
    return None


def _check_same_classes(train_key: str, train: Any, val_key: str, val: Any) -> None:
    """Labels are compared by number, so the classes need the same order in both."""
    _, train = next(single_datasets(train, ''))
    for key, part in single_datasets(val, val_key):
        names, others = class_names(train), class_names(part)
        # Without a common name it is another way to name them, such as words for numbers.
        if names is None or others is None or not set(names) & set(others):
            continue
        for number, (name, other) in enumerate(zip_longest(names, others)):
            if name != other:
                raise DataError(
                    f'class {number} is {name!r} in {train_key} and {other!r} in {key}: both need '
                    'the same classes in the same order; correct the folders or metainfo.classes.'
                )


def _check_length(loader: Any) -> None:
    try:
        batches = len(loader)
    except TypeError:  # an iterable data set of unknown length
        return
    if batches == 0:
        raise DataError(
            f'train_dataloader: its {len(loader.dataset)} samples do not fill one batch of '
            f'{loader.batch_size} per process and drop_last=True drops the rest, so there is '
            'nothing to train on; set a smaller train_dataloader.batch_size.'
        )
