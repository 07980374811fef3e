"""Is the data there? Asked before anything slow begins."""

import glob
from collections.abc import Iterator, Mapping
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[2]

# They fetch their data themselves.
_DOWNLOADING = ('MNIST', 'FashionMNIST', 'CIFAR10', 'CIFAR100')
# `split` names the folder of the images.
_SPLIT_IS_FOLDER = ('ImageNet', 'ImageNet21k')
_GUIDE = 'docs/en/data_preparation.md'


class DatasetNotFoundError(FileNotFoundError):
    """Files that a dataset of the config needs are missing."""


class WeightsNotFoundError(FileNotFoundError):
    """A checkpoint that the config names is missing."""


def _leaves(cfg: object, key: str) -> Iterator[tuple[str, Mapping]]:
    """Configs of single datasets with their keys, looking into wrappers such as ConcatDataset."""
    if isinstance(cfg, Mapping):
        if isinstance(cfg.get('dataset'), Mapping):
            yield from _leaves(cfg['dataset'], f'{key}.dataset')
        elif isinstance(cfg.get('datasets'), (list, tuple)):
            for index, part in enumerate(cfg['datasets']):
                yield from _leaves(part, f'{key}.datasets.{index}')
        else:
            yield key, cfg


def _is_remote(cfg: Mapping, path: str) -> bool:
    pipeline = cfg.get('pipeline') or [{}]
    backend_args = cfg.get('backend_args') or pipeline[0].get('backend_args')
    return '://' in path or path.startswith(('s3:', 'petrel:')) or bool(backend_args)


def _needed_paths(cfg: Mapping) -> Iterator[tuple[str, Path]]:
    """Keys of a dataset config that name local files or folders, with the resolved paths."""
    type_name = cfg['type'] if isinstance(cfg.get('type'), str) else ''
    type_name = type_name.rpartition('.')[2]
    root = str(cfg.get('data_root') or '')
    if type_name in _DOWNLOADING or _is_remote(cfg, root):
        return
    if root:
        yield 'data_root', Path(root)
    ann_file = cfg.get('ann_file') or ''
    if isinstance(ann_file, str) and ann_file and not _is_remote(cfg, ann_file):
        yield 'ann_file', Path(root, ann_file)
    prefix = cfg.get('data_prefix') or ''
    if not prefix and type_name in _SPLIT_IS_FOLDER:
        prefix = cfg.get('split') or ''
    parts = prefix if isinstance(prefix, Mapping) else {'': prefix}
    for name, part in parts.items():
        if isinstance(part, str) and part and not _is_remote(cfg, part):
            yield f'data_prefix.{name}'.rstrip('.'), Path(root, part)


def check_datasets(cfg: Mapping, loaders: tuple[str, ...]) -> None:
    """Make sure that the folders and annotation files of the datasets in a config exist.

    Args:
        cfg: A whole config.
        loaders: Keys of the data loaders to look at, such as ``('train_dataloader',)``.

    Raises:
        DatasetNotFoundError: Names the first missing path, every dataset that needs it, how to
            get it, and all others that are missing.
    """
    missing: dict[Path, list[str]] = {}
    for loader in loaders:
        for key, dataset in _leaves(cfg.get(loader) or {}, loader):
            for name, path in _needed_paths(dataset):
                if not path.expanduser().exists():
                    missing.setdefault(path, []).append(f'{key}.{name}')
                    break  # what is below a missing folder is missing too
    if missing:
        path, keys = next(iter(missing.items()))
        message = _message(path, keys)
        if len(missing) > 1:
            others = ', '.join(str(other) for other in list(missing)[1:])
            message += f' Also missing: {others}.'
        raise DatasetNotFoundError(message)


def _message(path: Path, keys: list[str]) -> str:
    looked_at = '' if path.is_absolute() else f' (looked for {Path.cwd() / path})'
    if 'digits' in path.parts:
        remedy = 'Write the digits with: python tools/dataset_converters/digits.py data/digits.'
    else:
        options = ' '.join(f'{key}=PATH' for key in keys)
        remedy = (
            f'{_GUIDE} says how to prepare it; if you have it elsewhere, link it here or add '
            f'--cfg-options {options}.'
        )
    need = 'needs' if len(keys) == 1 else 'need'
    return f'{path} does not exist{looked_at}; {" and ".join(keys)} {need} it. {remedy}'


def check_feature_caches(cfg: Mapping, loaders: tuple[str, ...]) -> None:
    """Make sure that every cache of teacher features that a pipeline reads is there.

    Raises:
        DatasetNotFoundError: Names the key, the folder and how to write it.
    """
    for loader in loaders:
        for key, dataset in _leaves(cfg.get(loader) or {}, loader):
            for index, transform in enumerate(dataset.get('pipeline') or ()):
                kind = transform.get('type') if isinstance(transform, Mapping) else None
                if not isinstance(kind, str) or kind.rpartition('.')[2] != 'LoadTeacherFeatures':
                    continue
                cache = transform.get('cache')
                if cache is not None and not Path(cache).exists():
                    raise DatasetNotFoundError(
                        f'{cache} does not exist (looked for {Path(cache).absolute()}); '
                        f'{key}.pipeline.{index}.cache needs it. Write the features of the teacher '
                        f'with: python tools/cache_teacher.py CONFIG --out {cache}.'
                    )


def _pretrained(cfg: object, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(cfg, Mapping):
        if cfg.get('type') == 'Pretrained' and isinstance(cfg.get('checkpoint'), str):
            yield f'{key}.checkpoint', cfg['checkpoint']
        for name, value in cfg.items():
            yield from _pretrained(value, f'{key}.{name}')
    elif isinstance(cfg, (list, tuple)):
        for index, value in enumerate(cfg):
            yield from _pretrained(value, f'{key}.{index}')


def check_weights(cfg: Mapping, *, start: bool = True) -> None:
    """Make sure that every local checkpoint a config names exists.

    Args:
        cfg: Config of a run.
        start: Whether the model starts from `init_cfg`. A test takes all weights from its
            checkpoint, but those of a teacher, which are in none.

    Raises:
        WeightsNotFoundError: Names the key and the file and, for one that another config of evamm
            writes, that config.
    """
    named = [
        (key, path)
        for key, path in _pretrained(cfg.get('model'), 'model')
        if start or key.startswith('model.teacher.')
    ]
    if cfg.get('load_from'):
        # A run that several processes have saved together is a folder.
        named.append(('--resume' if cfg.get('resume') else 'load_from', str(cfg['load_from'])))
    for key, path in named:
        place = Path(path).expanduser()
        found = place.exists() if key == '--resume' else place.is_file()
        if '://' not in path and not found:
            kind = 'is a folder' if place.is_dir() else 'does not exist'
            raise WeightsNotFoundError(
                f'{key}: the checkpoint {path} {kind} (looked for {place.absolute()}).'
                + ('' if key == '--resume' else _how_to_train(place))
            )


def _how_to_train(checkpoint: Path) -> str:
    """Which config writes work_dirs/NAME/FILE, as words of a message."""
    folder = checkpoint.absolute().parent
    if folder.parent.name == 'work_dirs':
        for root in (_PACKAGE.parent, _PACKAGE / '.mim'):  # a clone, a wheel
            for config in sorted(root.glob(f'configs/*/{glob.escape(folder.name)}.py')):
                if config.is_relative_to(Path.cwd()):
                    config = config.relative_to(Path.cwd())
                return f' Train {config} first, which writes it: python tools/train.py {config}.'
    return ''
