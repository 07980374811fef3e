"""Do the parts of a model fit each other? Asked of a built model, before the first batch."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from ..errors import ConfigError

# Where the head that knows classes may stand.
_CLASS_HEADS = ('head', 'bbox_head', 'roi_head.bbox_head')


def check_parts(model: nn.Module) -> None:
    """Compare channels, classes and sizes from part to part, by what the modules were built with.

    Args:
        model: A classifier or detector of any library; of another model nothing is looked at.

    Raises:
        ConfigError: Names the keys of the config, what they are and what to do.
    """
    _check_vectors(model)
    _check_maps(model)
    _check_levels(model)
    _check_mask_head(model)
    _check_padding(model)


def check_losses(model: nn.Module) -> None:
    """Compare losses with their heads; what does not train has no use for them.

    Raises:
        ConfigError: See :func:`check_parts`.
    """
    for key in _CLASS_HEADS:
        for head in _stages(_part(model, key)):
            # Losses of other libraries do not say which classes they are for.
            check = getattr(getattr(head, 'loss_cls', None), 'check_classes', None)
            if check is not None:
                try:
                    check(head.num_classes, f'model.{key}.loss_cls')
                except ValueError as error:
                    raise ConfigError(str(error)) from error


def class_count(model: nn.Module) -> tuple[str, int | None]:
    """Where the head that knows classes stands in the config, and how many it knows, if any."""
    for key in _CLASS_HEADS:
        heads = _stages(_part(model, key))
        count = getattr(heads[0], 'num_classes', None) if heads else None
        if isinstance(count, int) and (count > 0 or key == 'roi_head.bbox_head'):
            return f'model.{key}', count
    return 'model.head', None


def _part(model: nn.Module, key: str) -> Any:
    """A part of a model by its key in the config, None where there is none."""
    part = model
    for name in key.split('.'):
        part = getattr(part, name, None)
    return part


def _stages(part: Any) -> list:
    """A head, or those of all stages of a cascade."""
    if isinstance(part, nn.ModuleList):
        return list(part)
    return [] if part is None else [part]


def _check_vectors(model: nn.Module) -> None:
    backbone, head = _part(model, 'backbone'), _part(model, 'head')
    if getattr(backbone, 'out_type', None) not in ('cls_token', 'avg_featmap'):
        return  # not our trunk, or not one vector per image
    width, expected = backbone.embed_dims, getattr(head, 'in_channels', None)
    if _part(model, 'neck') is None and isinstance(expected, int) and width != expected:
        raise ConfigError(
            f'model.head.in_channels is {expected}, but the vectors of model.backbone have {width} '
            f'entries: set model.head.in_channels={width}.'
        )


def _check_maps(model: nn.Module) -> None:
    """From the trunk to the neck; a pyramid of several maps lists the channels of each."""
    backbone, taken = _part(model, 'backbone'), _part(model, 'neck.in_channels')
    if getattr(backbone, 'out_type', None) != 'featmap':
        return
    width, found = backbone.embed_dims, taken
    if isinstance(taken, (list, tuple)):
        width, found = [width] * len(backbone.out_indices), list(taken)
    if isinstance(found, (int, list)) and found != width:
        maps = len(backbone.out_indices)
        raise ConfigError(
            f'model.neck.in_channels is {taken}, but model.backbone (its arch and out_indices) '
            f'gives {maps} map{"s" * (maps > 1)} of {backbone.embed_dims} channels: set '
            f'model.neck.in_channels={width}.'
        )


def _check_levels(model: nn.Module) -> None:
    """From the neck, or from the trunk alone, to the heads."""
    backbone = _part(model, 'backbone')
    source, channels = 'model.neck.out_channels', _part(model, 'neck.out_channels')
    if _part(model, 'neck') is None and getattr(backbone, 'out_type', None) == 'featmap':
        source, channels = 'the width of model.backbone', backbone.embed_dims
    if not isinstance(channels, int):
        return
    wrong = {key: found for key, found in _takers(model) if found != channels}
    if wrong:
        listed = ', '.join(f'{key} is {found}' for key, found in wrong.items())
        raise ConfigError(f'{source} is {channels}, but {listed}: set all of them to one number.')


def _takers(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Keys of the parts that take the levels of a neck, and how many channels each expects."""
    pairs = [('rpn_head.in_channels', None), ('bbox_head.in_channels', None)]
    if not getattr(_part(model, 'roi_head'), 'with_shared_head', False):  # it changes the channels
        for name in ('bbox', 'mask'):
            extractor = f'roi_head.{name}_roi_extractor'
            pairs.append((f'{extractor}.out_channels', extractor))
            pairs.append((f'roi_head.{name}_head.in_channels', extractor))
    for key, extractor in pairs:
        pools = _stages(_part(model, extractor)) if extractor else []
        if any(getattr(pool, 'aggregation', None) == 'concat' for pool in pools):
            continue  # all levels side by side
        place, _, attribute = key.rpartition('.')
        for part in _stages(_part(model, place)):
            count = getattr(part, attribute, None)
            if isinstance(count, int):
                yield f'model.{key}', count


def _check_mask_head(model: nn.Module) -> None:
    """Masks have the classes of the boxes; with fewer a batch fails, more are never trained."""
    key, num_classes = class_count(model)
    for part in _stages(_part(model, 'roi_head.mask_head')):
        count = getattr(part, 'num_classes', None)
        if getattr(part, 'class_agnostic', False) or None in (count, num_classes):
            continue
        if count != num_classes:
            raise ConfigError(
                f'model.roi_head.mask_head.num_classes is {count}, but {key}.num_classes is '
                f'{num_classes}; both must be the number of classes of the data.'
            )


def _check_padding(model: nn.Module) -> None:
    """Squares are cut into whole patches.

    They need not be of `backbone.img_size`: position embedding, RoPE, windows and relative
    positions follow the grid of the batch, and EVA-01 is tested at more pixels than its tables
    of relative positions are stored for.
    """
    side, patch = _part(model, 'data_preprocessor.pad_size'), _part(model, 'backbone.patch_size')
    if isinstance(side, int) and isinstance(patch, int) and side % patch:
        raise ConfigError(
            f'model.data_preprocessor.pad_size is {side}, which is no multiple of the {patch} '
            f'pixels of a patch (model.backbone.patch_size): set it to a multiple, such as '
            f'{max(round(side / patch), 1) * patch}.'
        )
