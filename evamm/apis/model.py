"""Building a model from its name, a config file or a Config."""

import copy
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import nn

from evamm.apis.config import load_config
from evamm.apis.model_index import ModelEntry, prefers_averaged
from evamm.apis.transforms import set_img_size
from evamm.checkpoints import LoadReport, load_checkpoint
from evamm.checkpoints.errors import abbreviate
from evamm.engine.runner.parts import check_parts

_logger = logging.getLogger('evamm')

# Rules of loading that leave a part of the model at random values.
_FRESH = ('no-head', 'no-mask-head', 'class-count', 'other-part')


def get_model(
    model: str | os.PathLike | Config,
    pretrained: bool | str | os.PathLike = False,
    device: str | torch.device | None = None,
    *,
    img_size: int | None = None,
    num_classes: int | None = None,
    backbone: dict[str, Any] | None = None,
    neck: dict[str, Any] | None = None,
    head: dict[str, Any] | None = None,
    train_cfg: dict[str, Any] | None = None,
    prefer_ema: bool | None = None,
) -> BaseModel:
    """Builds a model in evaluation mode, with or without released weights.

    Args:
        model: Model name or alias (see `evamm.list_models`), config path (.py) or Config.
        pretrained: True for the weights named in the metafile (downloaded once, then cached; a
            config gives its `load_from`); a path or an address of a checkpoint in any dialect
            (official, timm, open_clip, mmpretrain, evamm); False for random weights drawn as in
            the official code.
        device: Where to put the model. 'meta' builds it without memory, for counting.
        img_size: Another input size in pixels; position embeddings are resized on loading and the
            model's transforms follow.
        num_classes: Another number of classes; the pretrained head is then left out and a new one
            starts from random weights. 0 builds the model without a head.
        backbone: Further settings of the backbone, merged into the config.
        neck: The same for the neck.
        head: The same for the head.
        train_cfg: The same for `train_cfg`, e.g. the batch augmentations.
        prefer_ema: Take the averaged weights of a checkpoint that has both kinds. None: those
            that the published accuracy belongs to, for released weights, else the averaged ones.

    Returns:
        The model. A classifier's `model(x)` gives logits [B, num_classes] (features if it has no
        head) and `model.extract_feat(x)` the features, for normalised images x [B, 3, H, W]. An
        image-text model (`evamm.EVACLIP`) has `encode_image` and `encode_text`. `load_report`
        says what became of every tensor of the checkpoint; None without one.

    Raises:
        ValueError: Unknown name or device, no weights are known for `pretrained=True`, or two parts
            of the model do not fit.
        CheckpointError: The checkpoint cannot be read or does not fit.

    Example:
        >>> model = evamm.get_model('eva02-tiny-p14_in21k-pre_3rdparty_in1k', pretrained=True)
        >>> model(torch.rand(1, 3, 336, 336)).shape
        torch.Size([1, 1000])
    """
    config, entry = load_config(model)
    device = _check_device(device)
    if isinstance((backbone or {}).get('arch'), dict) and isinstance(
        config.model.backbone.get('arch'), str
    ):
        config.model.backbone.pop('arch')  # mmengine cannot merge a dict into a name
    overrides = dict(backbone=backbone, neck=neck, head=head, train_cfg=train_cfg)
    config.merge_from_dict(
        {'model': {key: value for key, value in overrides.items() if value is not None}}
    )
    if img_size is not None:
        set_img_size(config, img_size)
    if num_classes is not None:
        _set_num_classes(config, num_classes)
    if config.model.get('data_preprocessor') is None:
        config.model.data_preprocessor = config.get('data_preprocessor') or {}
    if (config.model.get('head') or {}).get('num_classes'):  # batch augmentations need it
        config.model.data_preprocessor.num_classes = config.model.head.num_classes

    weights = _find_weights(pretrained, config, entry)
    on_meta = device is not None and torch.device(device).type == 'meta'
    if weights is not None and on_meta:
        raise ValueError("device='meta' holds no weights; use it with pretrained=False.")
    with _quiet_mmengine():
        built = _build(config, on_meta=on_meta)
        check_parts(built)
        if not on_meta:
            _init_weights(built, with_trunk=weights is None)
    meta: dict[str, Any] = {}
    built.load_report = None
    if weights is not None:
        sha256 = entry.sha256 if entry is not None and pretrained is True else None
        meta = load_weights(built, weights, sha256=sha256, prefer_ema=prefer_ema)
    if device is not None and not on_meta:
        built.to(device)
    # The attribute names are mmpretrain's, so that its inferencers and tools take our models.
    built._config = config
    built._metainfo = entry
    built._dataset_meta = _dataset_meta(meta, config)
    if hasattr(built, 'predictor') or is_detector(config):
        built.dataset_meta = built._dataset_meta
    if is_detector(config):
        built.cfg = config  # what mmdet's own inference asks for
    return built.eval()


def load_weights(
    model: BaseModel,
    weights: str | os.PathLike,
    *,
    sha256: str | None = None,
    prefer_ema: bool | None = None,
) -> dict[str, Any]:
    """Loads a checkpoint of any dialect, local or by its address, into a model.

    Args:
        model: Model that contains an EVA trunk.
        weights: Path, or http(s) address, which is downloaded to the cache.
        sha256: Expected hash of the file.
        prefer_ema: Take the averaged weights of a checkpoint that has both kinds. None: as the
            metafile says for a released file, else True.

    Returns:
        The checkpoint's `meta`, empty for a dialect without it.
    """
    if prefer_ema is None:
        prefer_ema = prefers_averaged(weights)
    report = load_checkpoint(model, os.fspath(weights), prefer_ema=prefer_ema, sha256=sha256)
    model.load_report = report
    _logger.info('%s', report)
    # A head of another number of classes has had its warning.
    fresh = [name for name, rule, _ in report.missing if rule in ('no-head', 'other-part')]
    if fresh:
        warnings.warn(
            f'{weights} does not hold {abbreviate(fresh, 3)}: this part of the model starts from '
            'random weights, and what comes out of it means nothing before it is trained.',
            stacklevel=2,
        )
    return report.meta


def fresh_parts(report: LoadReport | None) -> list[str]:
    """Names of the tensors that a checkpoint left at random values; empty without a checkpoint."""
    return [] if report is None else [name for name, rule, _ in report.missing if rule in _FRESH]


def class_names(model: BaseModel) -> tuple[str, ...] | None:
    """Names of the classes that `model` predicts, None where they are not known."""
    predictor = getattr(model, 'predictor', None)
    if hasattr(predictor, 'class_names'):  # zero-shot
        return tuple(predictor.class_names(model))
    names = getattr(model, '_dataset_meta', {}).get('classes')
    wanted = getattr(_class_head(model), 'num_classes', None)
    if names is None or wanted is None or len(names) != wanted:
        return None  # e.g. the ImageNet names of a config whose head was replaced
    return tuple(names)


def classes_go_by_id(config: Config, classes: Sequence[str] | None) -> bool:
    """Whether classes are all categories of an annotation file in the order of their ids.

    So it is in LVIS and Objects365, whose names are written in more than one way, unless a config,
    a checkpoint or a user gives other names.
    """
    dataset = _test_dataset(config)
    if classes is None or _own_meta(dataset).get('classes'):
        return False
    dataset_class = _class_of(dataset, config)
    if not getattr(dataset_class, 'CLASSES_BY_ID', False):
        return False
    return tuple(classes) == tuple(dataset_class.METAINFO['classes'])


def can_classify(config: Config) -> bool:
    """Whether a model of this config predicts classes: by a head, or by their names."""
    if (config.model.get('test_cfg') or {}).get('type') == 'zero_shot':
        return True
    return config.model.get('head') is not None


def is_detector(config: Config) -> bool:
    """Whether a model of this config finds boxes."""
    if config.get('default_scope') == 'mmdet':
        return True
    return str(config.model.get('type')).startswith('mmdet.')


def _class_head(model: BaseModel) -> nn.Module | None:
    """The part of a model that knows its number of classes; of a cascade, the last stage."""
    head = getattr(model, 'head', None)
    if head is None:
        head = getattr(getattr(model, 'roi_head', model), 'bbox_head', None)
    return head[-1] if isinstance(head, nn.ModuleList) else head


def _check_device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is unknown; use 'cpu', 'cuda' or 'cuda:1'.") from error
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f'device={str(device)!r} is not there: torch {torch.__version__} sees '
            f"{torch.cuda.device_count()} CUDA devices. Use 'cpu', or install a build of PyTorch "
            'for CUDA.'
        )
    return device


def _set_num_classes(config: Config, num_classes: int) -> None:
    if config.model.get('text') is not None:
        raise ValueError(
            f'num_classes={num_classes}: an image-text model has no classes. Take its image tower, '
            "a model with '-headless' in its name, or evamm.ZeroShotInferencer(model, classes)."
        )
    if is_detector(config):
        _set_detector_classes(config, num_classes)
    elif num_classes == 0:
        config.model.head = None
    elif config.model.get('head') is None:
        raise ValueError(
            f'num_classes={num_classes} needs a head, and the config {config.filename} has none. '
            "Give one: head=dict(type='LinearClsHead', in_channels=..., num_classes=...)."
        )
    else:
        config.model.head.num_classes = num_classes


def _set_detector_classes(config: Config, num_classes: int) -> None:
    parts = [config.model.get(name) for name in ('bbox_head', 'mask_head')]
    roi_head = config.model.get('roi_head') or {}
    parts += [roi_head.get(name) for name in ('bbox_head', 'mask_head')]
    heads = []
    for part in parts:
        heads += part if isinstance(part, list) else [part]
    heads = [head for head in heads if head is not None and 'num_classes' in head]
    if num_classes < 1 or not heads:
        raise ValueError(
            f'num_classes={num_classes}: a detector needs at least one class, and a bbox_head with '
            f'num_classes in its config; {config.filename} has {len(heads)} of these.'
        )
    for head in heads:
        head.num_classes = num_classes


def _find_weights(
    pretrained: bool | str | os.PathLike, config: Config, entry: ModelEntry | None
) -> str | None:
    if pretrained is False or pretrained is None:
        return None
    if pretrained is not True:
        return os.fspath(pretrained)
    weights = entry.weights if entry is not None else config.get('load_from')
    if not weights:
        source = f'The model {entry.name}' if entry is not None else 'The config'
        raise ValueError(
            f'{source} names no weights for pretrained=True. Give the path of a checkpoint: '
            "pretrained='/path/to/file'."
        )
    return weights


def _build(config: Config, *, on_meta: bool) -> BaseModel:
    from mmpretrain.registry import MODELS

    model_config = copy.deepcopy(config.model)
    # A training config may start from a pre-trained file. What to load is decided here by
    # `pretrained` alone.
    for part in ('backbone', 'text'):
        if model_config.get(part):
            model_config[part].pop('init_cfg', None)
    scope = config.get('default_scope') or 'mmpretrain'
    with DefaultScope.overwrite_default_scope(scope), torch.device('meta' if on_meta else 'cpu'):
        return MODELS.build(model_config)


def _init_weights(model: BaseModel, *, with_trunk: bool) -> None:
    """Draws random weights: of all, or only of what a checkpoint may lack, such as a new head."""
    if with_trunk:
        # Of a model in pre-training without its teacher, which only training needs.
        getattr(model, 'draw_weights', model.init_weights)()
        return
    for name, child in model.named_children():
        if name != 'backbone' and hasattr(child, 'init_weights'):
            child.init_weights()


@contextmanager
def _quiet_mmengine() -> Iterator[None]:
    """Without mmengine's three lines per parameter about how it was initialised."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _dataset_meta(checkpoint_meta: dict[str, Any], config: Config) -> dict[str, Any]:
    """Class names of the checkpoint, else of the config's test data set, else of its class."""
    stored = checkpoint_meta.get('dataset_meta')
    if isinstance(stored, dict) and _are_names(stored.get('classes')):
        return dict(stored)
    if _are_names(checkpoint_meta.get('CLASSES')):  # files of mmcls 0.x
        return {'classes': checkpoint_meta['CLASSES']}
    dataset = _test_dataset(config)
    own = _own_meta(dataset)
    if own.get('classes'):
        return own
    return dict(getattr(_class_of(dataset, config), 'METAINFO', None) or {})


def _test_dataset(config: Config) -> dict[str, Any]:
    """Config of the data set that a model is tested on; empty if there is none."""
    dataset = (config.get('test_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:  # RepeatDataset and its kin
        dataset = dataset['dataset']
    return dataset


def _own_meta(dataset: dict[str, Any]) -> dict[str, Any]:
    return dict(dataset.get('metainfo') or {})


def _class_of(dataset: dict[str, Any], config: Config) -> type | None:
    if not dataset:
        return None
    from mmpretrain.registry import DATASETS  # imports all data sets

    with DefaultScope.overwrite_default_scope(config.get('default_scope') or 'mmpretrain'):
        return DATASETS.get(dataset['type'])


def _are_names(value: object) -> bool:
    """Whether an entry of a file, which can hold anything, is a list of class names."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(name, str) for name in value)
    )
